"""Files and folders that are on the disk, not only in the memory of the operating system."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from client.files import storage_error

TOGETHER: Final = 16
"""Files waited for at once, so that the disk can join them: half the time of one by one, measured on 600 images."""


def on_disk(paths: Iterable[Path], subject: str) -> None:
    """Wait until these files, or the lists of names of these folders, are on the disk.

    Args:
        paths: what must be there after a power cut.
        subject: what they are, for the error.

    Raises:
        StorageError: one of them cannot be written.
    """
    waiting = list(paths)
    try:
        with ThreadPoolExecutor(TOGETHER) as hands:
            for _ in hands.map(_sync_all, (waiting[first::TOGETHER] for first in range(TOGETHER))):
                pass
    except OSError as error:
        raise storage_error(error, subject) from None


def _sync_all(paths: Iterable[Path]) -> None:
    for path in paths:
        _sync(path)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # its patient withdrew meanwhile; whoever needs it says so
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
