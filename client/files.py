"""Files of a site written whole or not at all; a full disk is named as such and leaves what was there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from common.durability import push
from common.errors import StorageError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Disk full, over quota, or past the size limit of a file or process."""


def storage_error(error: OSError, subject: str) -> StorageError:
    """Our name for what the operating system said while one of our own files was read or written."""
    if error.errno in FULL:
        return StorageError(
            subject,
            "the disk is full",
            "Free space and repeat; what was there is unchanged",
            code="storage-full",
        )
    return StorageError(
        subject, "it cannot be read or written", "Check that its folder exists and its rights", code="storage"
    )


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into that takes its name only when all of it is on the disk.

    Raises:
        StorageError: `storage-full` or `storage`; an earlier file of that name is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            push(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, path.name) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed had begun to write into a folder by `whole_file`.

    Not while this process writes there itself: its own unfinished files count as abandoned, because a number
    comes again, in a container at every start.

    Raises:
        StorageError: one cannot be removed.
    """
    for path in folder.glob(".*.tmp"):
        writer = path.name.split(".")[-2]
        if writer.isdecimal() and (int(writer) == os.getpid() or not _runs(int(writer))):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, folder.name) from None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    return True


def write_rows(path: Path, rows: Iterable[npt.NDArray[Any]], shape: tuple[int, ...], dtype: str) -> None:
    """Write a `.npy` file row by row, holding one row in memory.

    Rows are written, not mapped: a full disk then is an error here and not a bus error later.

    Args:
        path: the file to write or replace.
        rows: `shape[0]` arrays of `shape[1:]`.
        shape: of the whole array.
        dtype: numpy name, e.g. `<f2`.

    Raises:
        StorageError: the disk is full or refuses.
    """
    with whole_file(path) as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(np.ascontiguousarray(row, dtype=dtype).tobytes())
