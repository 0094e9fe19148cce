"""The listener and the taker together, until somebody stops them or, with `once`, until all is quiet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from client.pacs.inbox import Inbox
from client.pacs.listener import Counts, Listener
from client.pacs.stop import stop_signals
from client.pacs.take import Taken, Taker, Taking, alone
from client.site import Site
from common.errors import StorageError
from common.logs import Log

TURN_S: Final = 1.0
_LOG: Final = Log("client.pacs")


@dataclass(frozen=True)
class Sight:
    """What a person at the terminal sees."""

    port: int
    associations: int
    waiting: int
    """Instances in the inbox."""
    came: Counts
    taken: Taken


def serve(site: Site, how: Taking, *, once: bool, tell: Callable[[Sight], None]) -> Taken:
    """Listen and take in; SIGTERM and SIGINT end it, and what is in the inbox stays there.

    Args:
        site: the hospital.
        how: quiet time, labels, processes.
        once: end when nothing came for the quiet time, no association is open and all is taken in.
        tell: called about once a second, from this thread.

    Raises:
        SettingsError: no sender is named, or address or certificates cannot be used.
        StorageError: another listener takes from this inbox.
        ConsiliumError: with `once`, what holds the inbox up.
    """
    stop = threading.Event()
    inbox = Inbox.of(site)
    taker = Taker(site, inbox, how, stop.is_set)
    with stop_signals(stop), _quiet_threads(), alone(inbox), Listener(site, inbox) as listener:
        idle_since = time.monotonic()
        while not stop.wait(min(TURN_S, how.quiet_s)):
            before = _arrived(listener)
            begun = _turn(taker)
            tell(Sight(listener.port, listener.active, inbox.count(), listener.counts, taker.taken))
            if begun or listener.active or _arrived(listener) != before:
                idle_since = time.monotonic()
            if once and _over(taker, inbox, time.monotonic() - idle_since >= how.quiet_s):
                break
    return taker.taken


def _turn(taker: Taker) -> int:
    try:
        return taker.turn()
    except StorageError as error:  # the inbox itself; the listener answers out of resources meanwhile
        taker.taken.error = error
        _LOG.error("pacs.inbox_failed", code=error.code)
        return 0


def _over(taker: Taker, inbox: Inbox, quiet: bool) -> bool:  # noqa: FBT001 - one caller
    if taker.taken.error is not None:
        raise taker.taken.error
    return quiet and not inbox.count()


def _arrived(listener: Listener) -> int:
    return listener.counts.received + listener.counts.again


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """An association that dies in its thread leaves a line without text; what a sender sent is not repeated."""

    def note(_args: threading.ExceptHookArgs) -> None:
        """Say that it happened."""
        _LOG.warning("pacs.association_failed")

    before = threading.excepthook
    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before
