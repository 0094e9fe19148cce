"""What a file system says of a file's last change, so that bytes need not be hashed twice to see that they stayed.

The process that names a file by its bytes takes the stamp; the one that reads it compares. Equal and settled stamps
mean that nothing wrote to the file between. A file system's clock ticks in steps (4 ms on Linux, 2 s on FAT), so two
changes within one step look like one: a stamp counts only if the file had been left alone for `SETTLED_S` when it was
taken (the same rule as Git's for its index, "racy Git"). Where it does not count, the bytes are hashed again.
"""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

SETTLED_S: Final = 5.0
"""Longer than the coarsest step of a file system's clock."""


class Stamp(NamedTuple):
    """A file at a moment; `changed_ns` is set by the system at every change and by no user."""

    device: int
    number: int
    size: int
    written_ns: int
    changed_ns: int


def stamp_of(handle: int) -> Stamp:
    """Of an open file.

    Raises:
        OSError: the file is gone from its server.
    """
    held = os.fstat(handle)
    return Stamp(held.st_dev, held.st_ino, held.st_size, held.st_mtime_ns, held.st_ctime_ns)


def settled(stamp: Stamp, now_ns: int | None = None) -> bool:
    """Whether a change after this moment would show in the next stamp.

    Args:
        stamp: taken just now.
        now_ns: nanoseconds since 1970; the clock's when None. A file from the future is never settled.
    """
    now = time.time_ns() if now_ns is None else now_ns
    return max(stamp.written_ns, stamp.changed_ns) + int(SETTLED_S * 1e9) < now
