"""Whose fault it was that a file could not be finished: the file's, or ours.

An untrusted file can make a parser raise anything, and that is the file's fault. An exception that no parser raised is a
mistake of this program; saying of such a file that it is damaged would send people looking for another one.
"""

from __future__ import annotations

import traceback
from typing import Final

from client.intake.parse import damaged
from common.errors import FileRefused

PARSERS: Final = frozenset(
    (
        "pydicom",
        "pylibjpeg",
        "openjpeg",
        "libjpeg",
        "rle",
        "_gdcm",
        "gdcm",
        "jpeg_ls",
        "_CharLS",
        "PIL",
        "zlib",
    )
)
"""Packages that read what a stranger wrote."""
OURS: Final = frozenset(("client", "common"))


def failure(error: Exception) -> FileRefused:
    """What a file is refused for that ended in an exception which nobody foresaw.

    Returns:
        `parser-error`, or `internal` with the place in the program; never with what the exception says, which may hold
        a patient's words.
    """
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    lines = [line for _, line in traceback.walk_tb(error.__traceback__)]
    ours = max((n for n, name in enumerate(frames) if _package(name) in OURS), default=-1)
    if any(_package(name) in PARSERS for name in frames[ours + 1 :]):
        return damaged()
    place = f"{frames[ours]}:{lines[ours]}" if ours >= 0 else "an unknown place"
    return FileRefused(
        "a file",
        f"Consilium itself failed on it: {type(error).__name__} at {place}",
        "Nothing is wrong with the file. It stays in quarantine and the others went on; report this line, which "
        "holds nothing of a patient, and send the file again after an update",
        code="internal",
    )


def _package(name: str) -> str:
    return name.partition(".")[0]
