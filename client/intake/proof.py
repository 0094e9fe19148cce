"""The last gate before the disk: the bytes of a file are searched, then written, read back and compared.

Bytes that were not searched never touch the disk, and a file takes its name last: a process that is killed
anywhere leaves nothing that could be mistaken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.deid.pictured import check_pictured
from client.deid.text.clean import words_in
from client.deid.verify import Wanted, check
from client.files import storage_error
from common.errors import StorageError


@dataclass(frozen=True)
class Proof:
    """What a file must be free of."""

    wanted: Wanted
    private: Sequence[str] = ()
    """Creators whose private numbers the hospital keeps."""
    searched: bool = True
    """Whether pixels are read too; False where the hospital's settings say that they are not."""

    def hold(self, data: bytes) -> None:
        """Search the bytes of a file, and read its pixels.

        Raises:
            FileRefused: `deid-verify`; `review-reader`, when there is something to read and no reader.
        """
        pixels = check(data, self.wanted, self.private)
        if self.searched:
            check_pictured(words_in(pixels.array()), self.wanted)


def write_proved(path: Path, data: bytes, proof: Proof) -> str:
    """Search, write, and see that what lies on the disk is what was searched.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        FileRefused: as `Proof.hold`; nothing was written.
        StorageError: the disk refuses, or gives back something else.
    """
    proof.hold(data)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        _check_same(part.read_bytes(), data)
        part.replace(path)
    except OSError as error:
        _remove(part)
        raise storage_error(error, "staging") from None
    except BaseException:
        _remove(part)
        raise
    return hashlib.sha256(data).hexdigest()


def _check_same(written: bytes, searched: bytes) -> None:
    if written != searched:
        raise StorageError(
            "the staging folder",
            "what was read back is not what was written",
            "Check the disk, then repeat the same command",
            code="storage-damaged",
        )


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
