"""How a command that runs for long is ended: once politely, twice as usual."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """Let a service manager's signal end the loop; the second one ends the process as usual."""

    def end(number: int, _frame: FrameType | None) -> None:
        """Ask for the end, once."""
        signal.signal(number, before[signal.Signals(number)])
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
