"""What a supervisor asks of Linux: a folder for one at a time, a signal to a whole session, an end with the parent."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from common.errors import FederationError, StorageError
from common.locks import taken

_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def locked(folder: Path) -> IO[bytes]:
    """Hold a supervisor's folder, made where it is not there, until the file is closed.

    Raises:
        FederationError: code `running` when another supervisor holds it.
        StorageError: when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return taken(folder / "supervisor.lock")
    except BlockingIOError:
        raise FederationError(
            folder.name, "it is started already", "Stop the other one first", code="running"
        ) from None
    except OSError:
        raise StorageError(folder.name, "it cannot be written", "Check free space and rights") from None


def signal_tree(leader: int, number: int) -> None:
    """To every process of the session's group; a leader that ended leaves its number to its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def die_with_parent() -> None:
    """Have Linux end this process when its parent ends."""
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL)
