"""Files that one process holds at a time: to be the only one at some work, or to take turns.

The kernel lets go of such a file with the process that held it, however that ended, so nobody is ever locked out by
what is left of another.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def taken(path: Path) -> IO[bytes]:
    """The file at `path`, made where it is not there, and held until it is closed.

    Raises:
        BlockingIOError: another process, or another place in this one, holds it.
        OSError: it cannot be made, or this disk knows no locks.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
