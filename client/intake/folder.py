"""The files of a folder, in one order everywhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from client.deid.pseudonyms import Pseudonyms
from client.intake.labels import LabelTable
from client.intake.outcome import Outcome, Person
from client.intake.stamp import Stamp, settled, stamp_of
from client.intake.wrap import SUFFIXES
from common.errors import IntakeError

_NO_IMAGES: Final = frozenset(
    (
        ".csv",
        ".tsv",
        ".txt",
        ".log",
        ".md",
        ".json",
        ".xml",
        ".html",
        ".htm",
        ".pdf",
        ".doc",
        ".docx",
        ".xls",
        ".xlsx",
        ".ini",
        ".inf",
        ".exe",
        ".db",
    )
)
_PIECE: Final = 2**18
"""Bytes read at once; what a processor's cache holds while they are hashed."""
_SPECIAL: Final = Outcome(
    "file-special", "it is no file: a pipe, a device, or a link to nothing", "Leave it out of the folder"
)
_OUTSIDE: Final = Outcome(
    "file-outside", "it is a link that leads out of the folder", "Put the file itself into the folder"
)
"""A link may lead to anything that this user can read, the site's own keys too."""


@dataclass(frozen=True)
class Content:
    """The bytes of a file, as they were at a moment."""

    digest: bytes
    """SHA-256."""
    stamp: Stamp | None = None
    """By which the same bytes are known later without reading them; None where only their digest tells."""


@dataclass(frozen=True)
class Incoming:
    """One file as it came. Its path is used to read it and for nothing else."""

    path: Path
    relative: str
    """With forward slashes, as a label table names it."""
    person: Person | None
    refusal: Outcome | None = None
    """Why it must not be opened at all."""

    @property
    def may_be_image(self) -> bool:
        """Whether a file that could not be read may still be the image that a label is for."""
        return self.path.suffix.casefold() not in _NO_IMAGES

    def content(self) -> Content:
        """What it holds now.

        Raises:
            OSError: the file cannot be read.
        """
        with self.path.open("rb", buffering=0) as file:
            before, hashed = stamp_of(file.fileno()), hashlib.sha256()
            while piece := file.read(_PIECE):
                hashed.update(piece)
            digest = hashed.digest()
            still = before == stamp_of(file.fileno()) and settled(before)
        return Content(digest, before if still else None)

    def key(self, names: Pseudonyms, digest: bytes | None = None) -> str:
        """Keyed digest of the content and, for a picture, of the person it is said to show.

        Args:
            names: of the site.
            digest: of its bytes; asked for when None.

        Raises:
            OSError: the file cannot be read.
        """
        digest = self.content().digest if digest is None else digest
        who = "" if self.person is None else "\0".join(vars(self.person).values())
        return names.content(digest, who.encode("utf-8"))


def list_files(folder: Path, labels: Path | None, table: LabelTable | None) -> list[Incoming]:
    """Every file under a folder, ordered by name; hidden files and the label table itself are left out.

    What is no file, or leads out of the folder, is listed with its refusal.

    Raises:
        IntakeError: the folder is missing, unreadable or empty.
    """
    if folder.is_file():
        raise _error("it is a file, not a folder", "Give the folder that holds the images", "intake-missing")
    if not folder.is_dir():
        raise _error("the folder is not there", "Give the folder that holds the images", "intake-missing")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _error("the folder cannot be read", "Give this user the right to read it", "intake-unreadable")
    own = labels.resolve() if labels is not None else None
    found = [path for path in _walk(folder) if not path.name.startswith(".") and not _same(path, own)]
    if not found:
        raise _error("the folder holds no files", "Give the folder that holds the images", "intake-empty")
    incoming = [_incoming(folder, path, table) for path in found]
    return sorted(incoming, key=lambda file: file.relative)


def _same(path: Path, own: Path | None) -> bool:
    return own is not None and path.resolve() == own


def check_apart(folder: Path, own: Iterable[Path]) -> None:
    """Check that a folder neither lies in a site's own folders nor holds one of them: there, keys are files too.

    Raises:
        IntakeError: `intake-own`.
    """
    there = folder.resolve()
    for path in (path.resolve() for path in own):
        if path.is_relative_to(there) or (path.is_dir() and there.is_relative_to(path)):
            raise _error(
                "it holds, or lies in, this site's own folders",
                "Give the folder to which the archive exports, apart from the site",
                "intake-own",
            )


def _walk(folder: Path) -> list[Path]:
    def unreadable(_: OSError) -> None:
        raise _error(
            "a folder inside it cannot be read", "Give this user the right to read it", "intake-unreadable"
        )

    return [Path(at) / name for at, _, names in os.walk(folder, onerror=unreadable) for name in names]


def _incoming(folder: Path, path: Path, table: LabelTable | None) -> Incoming:
    # A name that is not UTF-8 cannot stand in a table; it must not stop the others.
    relative = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
    refusal = _refusal(folder, path)
    if refusal is not None or path.suffix.casefold() not in SUFFIXES:
        return Incoming(path, relative, None, refusal)
    row = table.rows.get(relative) if table is not None and table.kind == "path" else None
    person = (
        row.person if row is not None and row.person is not None else Person(PurePosixPath(relative).stem)
    )
    return Incoming(path, relative, person)


def _refusal(folder: Path, path: Path) -> Outcome | None:
    """Why a name in a folder must not be opened: opening a pipe waits for ever, opening a link may read anything."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return _OUTSIDE  # only the last name can be a link: folders that are links are not gone into
    return None if path.is_file() else _SPECIAL


def _error(rule: str, remedy: str, code: str) -> IntakeError:
    return IntakeError("the folder to take in", rule, remedy, code=code)
