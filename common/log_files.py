"""Files that processes write their words into for months, kept from filling the disk.

A file that has grown past its limit is copied beside itself, as `<name>.1`, in place of the copy before, and emptied. It
stays the same file, because whoever writes it (nginx, stunnel, a program of ours) holds it open and appends.
A line that is written in between may be lost; audit logs are something else (`common.audit`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LARGEST: Final = 16 << 20
"""Bytes; with the copy twice as many at most, beside what comes between two looks."""


class Bounded:
    """Log files that are looked at now and then.

    Args:
        paths: as `bound` takes them.
        every_s: seconds between two looks.
        largest: bytes.
    """

    def __init__(self, paths: Iterable[Path], every_s: float = 60.0, largest: int = LARGEST) -> None:
        self._paths = tuple(paths)
        self._every_s = every_s
        self._largest = largest
        self._due = float("-inf")

    def look(self) -> None:
        """Empty what has grown too large, where it is time to look."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_s
            bound(self._paths, self._largest)


def bound(paths: Iterable[Path], largest: int = LARGEST) -> list[Path]:
    """Empty those that have grown past `largest` bytes, with a copy kept of each.

    Args:
        paths: files that are only ever appended to (`O_APPEND`); one that is not there is none of them.
        largest: bytes.

    Returns:
        Those that were emptied; one that cannot be copied, as on a full disk, is left as it is.
    """
    return [path for path in paths if _bounded(path, largest)]


def _bounded(path: Path, largest: int) -> bool:
    copy = path.with_name(f"{path.name}.1")
    try:
        if path.is_symlink() or path.stat().st_size <= largest:
            return False
        shutil.copyfile(path, copy, follow_symlinks=False)
        copy.chmod(path.stat().st_mode & 0o777)
        os.truncate(path, 0)
    except OSError:
        return False
    return True
