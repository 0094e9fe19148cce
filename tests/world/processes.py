"""Real child processes that a test is sure to end, and waiting for what they do without guessing how long."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

DEADLINE_S = 90.0
"""Long, since the machine may be busy; what is waited for comes in a second or two."""


class Processes:
    """Children with a log file each; all are killed, with their children, at the end of the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._running):
            self.kill(child)

    def start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """One child in a group of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
            )
        self._running.append(child)
        return child

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """End a child and what it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=20)

    def log(self, name: str) -> str:
        """What a child has said so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


def until(what: str, true: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until something holds, or fail by name."""
    end = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain: {what}")
        time.sleep(0.05)


def listening(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_ports(count: int, host: str = "127.0.0.1", *, in_a_row: int = 1) -> list[int]:
    """Ports that nobody listens to; with `in_a_row` each has as many free ones after it."""
    found: list[int] = []
    while len(found) < count:
        with contextlib.ExitStack() as held:
            try:
                first = held.enter_context(socket.socket())
                first.bind((host, 0))
                port = int(first.getsockname()[1])
                for more in range(1, in_a_row):
                    held.enter_context(socket.socket()).bind((host, port + more))
            except (OSError, OverflowError):
                continue
        if port not in found:
            found.append(port)
    return found
