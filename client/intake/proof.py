"""The last gate before the disk: the bytes of a file are searched, then written, read back and compared.

Bytes that were not searched never touch the disk, and a file takes its name last: a process that is killed
anywhere leaves nothing that could be mistaken for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from client.deid.pictured import check_pictured
from client.deid.text.clean import words_in
from client.deid.verify import Wanted, check
from client.files import storage_error
from client.intake.digests import file_digest, tail_digest
from common.errors import StorageError


@dataclass(frozen=True)
class Proof:
    """What a file must be free of."""

    wanted: Wanted
    private: Sequence[str] = ()
    """Creators whose private numbers the hospital keeps."""
    searched: bool = True
    """Whether pixels are read too; False where the hospital's settings say that they are not."""

    def hold(self, data: bytes) -> tuple[int, bytes]:
        """Search the bytes of a file, and read its pixels.

        Returns:
            bytes of the pixels, and what names them.

        Raises:
            FileRefused: `deid-verify`; `review-reader`, when there is something to read and no reader.
        """
        pixels = check(data, self.wanted, self.private)
        tail = tail_digest(pixels.value)
        if self.searched:
            check_pictured(words_in(pixels.array()), self.wanted)
        return len(pixels.value), tail


class Written(NamedTuple):
    """A file that was written: its digest, and that of its pixels."""

    digest: str
    tail: bytes


def write_proved(path: Path, data: bytes, proof: Proof) -> Written:
    """Search, write, and see that what lies on the disk is what was searched.

    Returns:
        what names the file and its pixels.

    Raises:
        FileRefused: as `Proof.hold`; nothing was written.
        StorageError: the disk refuses, or gives back something else.
    """
    length, tail = proof.hold(data)
    part = f"{path.parent}/.{path.stem}.{os.getpid()}.part"
    try:
        _write(part, data)
        os.replace(part, path)  # noqa: PTH105 (an object for each of a million files)
    except OSError as error:
        _remove(part)
        raise storage_error(error, "staging") from None
    except BaseException:
        _remove(part)
        raise
    return Written(file_digest(data, length, tail), tail)


def _write(part: str, data: bytes) -> None:
    """Write a file, and see that it gives back what it was given; by one handle, which costs a third less than two."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.lseek(handle, 0, os.SEEK_SET)
        _check_same(os.read(handle, len(data) + 1), data)
    finally:
        os.close(handle)


def _check_same(written: bytes, searched: bytes) -> None:
    if written != searched:
        raise StorageError(
            "the staging folder",
            "what was read back is not what was written",
            "Check the disk, then repeat the same command",
            code="storage-damaged",
        )


def _remove(part: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(part)  # noqa: PTH108 (as above)
