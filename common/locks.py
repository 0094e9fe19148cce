"""Files that one process holds at a time: to be the only one at some work, or to take turns.

The kernel lets go of such a file with the process that held it, however that ended, so nobody is ever locked out by
what is left of another.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO, Final

_POLL_S: Final = 0.1


def taken(path: Path, wait_s: float = 0.0) -> IO[bytes]:
    """The file at `path`, made where it is not there, and held until it is closed.

    Args:
        path: of the file; its folder is there.
        wait_s: for how many seconds it is tried again while another holds it.

    Raises:
        BlockingIOError: another process, or another place in this one, still holds it.
        OSError: it cannot be made, or this disk knows no locks.
    """
    ends = time.monotonic() + wait_s
    file = path.open("ab")
    try:
        while not _held(file, last=time.monotonic() >= ends):
            time.sleep(_POLL_S)
    except OSError:
        file.close()
        raise
    return file


def awaited(path: Path) -> IO[bytes]:
    """The same file, once those before us have let go of it.

    Raises:
        OSError: it cannot be made, or this disk knows no locks.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        file.close()
        raise
    return file


def _held(file: IO[bytes], *, last: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if last:
            raise
        return False
    return True
