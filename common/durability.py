"""Whether what is written is pushed to the disk before anything else happens; it is, everywhere but in simulations.

Pushing (fsync) is for the moment at which a machine loses its power: what a killed process wrote is kept by the kernel
without it. A hospital's ledger and log must outlast that moment. A virtual hospital's are made anew with its machine,
and a simulation of a thousand of them would wait for the disk most of the time; so a process that holds
virtual hospitals and nothing else may say so once, with `relax`. It can then no longer load a real one (`client.site`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_OFF: Final = "OFF"
_IN_MEMORY: Final = "MEMORY"


class _Will:
    """Of the process."""

    relaxed = False


def relax() -> None:
    """From now on and for good, this process leaves it to the kernel when its files reach the disk."""
    _Will.relaxed = True


def relaxed() -> bool:
    """Whether `relax` was called here: this process may hold virtual hospitals only."""
    return _Will.relaxed


def push(handle: int) -> None:
    """Push an open file or folder to the disk.

    Args:
        handle: its descriptor; what Python buffers must have been flushed.

    Raises:
        OSError: the disk refuses.
    """
    if not _Will.relaxed:
        os.fsync(handle)


def push_folder(folder: Path) -> None:
    """Push a folder's names to the disk, so that a file that was renamed into it stays.

    Raises:
        OSError: the disk refuses.
    """
    if _Will.relaxed:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def journal_mode(mode: str) -> str:
    """SQLite's word for where a transaction waits until it is whole; in memory where a power cut does not matter.

    Args:
        mode: of a file that matters, such as `DELETE`.
    """
    return _IN_MEMORY if _Will.relaxed else mode


def synchronous(level: str) -> str:
    """SQLite's word for how far a commit is pushed (https://sqlite.org/pragma.html#pragma_synchronous).

    Args:
        level: `FULL`, or `EXTRA` for the folder, too.
    """
    return _OFF if _Will.relaxed else level
