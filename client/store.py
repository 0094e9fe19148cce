"""The store: every image preprocessed once, in one memory-mapped array for each way a plan asks for it.

    <data>/store/<digest of the input section>/images-<n>.npy   float16 [images, rows, columns]
    <data>/store/<digest of the input section>/rows.json        which image lies in which row

`rows.json` names the array; replacing it is the one moment at which a build takes effect. Before it,
the old store is whole; after it, the new one. Half precision keeps 11 bits, more than a detector's
noise leaves in a z-score. Withdrawn rows are overwritten with zeros where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from client.files import storage_error, whole_file, write_rows
from client.index import ImageRow, Index
from client.preprocess import to_tensor
from client.preprocess.tensor import VERSION
from client.site import Site
from common.errors import FileRefused, StorageError
from common.plan import Input

DTYPE: Final = "<f2"
FEW_IMAGES: Final = 200
"""Below this many images starting processes costs more than it saves (0.6 s each, 3 ms an image)."""
CHUNK: Final = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Store:
    """Preprocessed images: row `i` of `images` is the image `sop_uids[i]`."""

    images: npt.NDArray[np.float16]
    """float16 [N, rows, columns], memory-mapped, read-only."""
    sop_uids: tuple[str, ...]

    @property
    def row_of(self) -> dict[str, int]:
        """Row number by SOP instance UID."""
        return {uid: row for row, uid in enumerate(self.sop_uids)}


@dataclass(frozen=True)
class _Rows:
    """What `rows.json` says: the array's file, and per row the image and the digest of its pixels."""

    file: str
    sop_uids: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


def input_digest(spec: Input) -> str:
    """Names a way of preprocessing: 16 hexadecimal digits of the input section and this code's version."""
    text = json.dumps({"input": asdict(spec), "version": VERSION, "dtype": DTYPE}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_store(
    site: Site,
    spec: Input,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    images: Sequence[ImageRow] | None = None,
) -> Store:
    """Preprocess what is in the index and not yet in the store; rows of images that left are dropped.

    Args:
        site: whose index and de-identified files are read.
        spec: the plan's input section; its modalities choose the images.
        progress: called with (images done, images to do).
        workers: processes; all cores when None, this one alone when 1 or for few images.
        images: every image of the index, where the caller has just read them: a store that is theirs is not
            compared with the index again.

    Returns:
        the store, rows ordered as the index lists the images.

    Raises:
        StorageError: `storage-full`, `storage`, or `storage-corrupt` when one of our own files cannot
            be read any more. The store is as it was before the call.
    """
    folder = site.store / input_digest(spec)
    have = _read_rows(folder)
    if have is not None and images is not None and _is_of(have, _wanted(images, spec)):
        return _open(folder, have)
    with Index(site.index) as index:
        wanted = _wanted(index.images(), spec)
    if have is not None and _is_of(have, wanted):
        return _open(folder, have)
    arrays = _arrays(site, spec, wanted, _kept(folder, have), _Effort(progress, workers))
    return lay_down(site, spec, wanted, arrays)


def _wanted(images: Sequence[ImageRow], spec: Input) -> list[ImageRow]:
    return [row for row in images if row.modality in spec.modalities]


def _is_of(have: _Rows, wanted: Sequence[ImageRow]) -> bool:
    uids, digests = tuple(row.sop_uid for row in wanted), tuple(row.pixel_digest for row in wanted)
    return (have.sop_uids, have.digests) == (uids, digests)


def lay_down(site: Site, spec: Input, rows: Sequence[ImageRow], images: Iterable[npt.NDArray[Any]]) -> Store:
    """Make the store of arrays that are at hand; `build_store` then finds it whole.

    Args:
        site: whose store it is.
        spec: the plan's input section.
        rows: of its index, in the index's order.
        images: one per row, of `spec.shape`, as `client.preprocess.to_tensor` makes them.

    Raises:
        StorageError: as `build_store`.
    """
    folder = site.store / input_digest(spec)
    uids, digests = tuple(row.sop_uid for row in rows), tuple(row.pixel_digest for row in rows)
    made = _Rows(_next_file(_read_rows(folder)), uids, digests)
    write_rows(folder / made.file, images, (len(rows), *spec.shape), DTYPE)
    _write_rows_json(folder, made)
    _remove_others(folder, made.file)
    return _open(folder, made)


def erase(site: Site, sop_uids: frozenset[str]) -> int:
    """Overwrite these images with zeros in every store and drop them; returns how many rows that were.

    Raises:
        StorageError: a store cannot be written. Safe to repeat.
    """
    erased = 0
    for folder in sorted(path for path in site.store.glob("*") if path.is_dir()):
        rows = _read_rows(folder)
        if rows is None:
            continue
        hit = [place for place, uid in enumerate(rows.sop_uids) if uid in sop_uids]
        if not hit:
            continue
        _zero(folder / rows.file, hit)
        # the place keeps a row that names no image; the next build closes the gap
        uids = tuple("" if uid in sop_uids else uid for uid in rows.sop_uids)
        digests = tuple("" if not uid else d for uid, d in zip(uids, rows.digests, strict=True))
        _write_rows_json(folder, _Rows(rows.file, uids, digests))
        erased += len(hit)
    return erased


@dataclass(frozen=True)
class _Effort:
    """How the work is done; changes nothing in the result."""

    progress: Progress | None
    workers: int | None


def _arrays(
    site: Site, spec: Input, wanted: list[ImageRow], kept: dict[tuple[str, str], Any], effort: _Effort
) -> Iterator[npt.NDArray[Any]]:
    new = [row for row in wanted if (row.sop_uid, row.pixel_digest) not in kept]
    made = _preprocessed([(str(site.dicom / row.file), spec) for row in new], effort.workers)
    done = 0
    for row in wanted:
        old = kept.get((row.sop_uid, row.pixel_digest))
        if old is not None:
            yield old
            continue
        yield next(made)
        done += 1
        if effort.progress is not None:
            effort.progress(done, len(new))


def _preprocessed(tasks: list[tuple[str, Input]], workers: int | None) -> Iterator[npt.NDArray[np.float16]]:
    count = workers or len(os.sched_getaffinity(0))
    if count == 1 or len(tasks) < FEW_IMAGES:
        yield from map(_one, tasks)
        return
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        yield from pool.map(_one, tasks, chunksize=CHUNK)
    except BrokenProcessPool:
        raise StorageError(
            "the store", "a worker process was ended from outside", "Check the memory, then repeat"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _one(task: tuple[str, Input]) -> npt.NDArray[np.float16]:
    import pydicom  # noqa: PLC0415 - slow to import, and a hospital trains from its store without it

    file, spec = task
    try:
        return to_tensor(pydicom.dcmread(file), spec).astype(DTYPE)
    except OSError as error:
        raise storage_error(error, "a de-identified image") from None
    except (FileRefused, pydicom.errors.InvalidDicomError, AttributeError, ValueError) as error:
        raise StorageError(
            "a de-identified image",
            f"it passed the gates once and cannot be read now ({type(error).__name__})",
            "Check the disk, then ingest its source again",
            code="storage-corrupt",
        ) from None


def _kept(folder: Path, have: _Rows | None) -> dict[tuple[str, str], Any]:
    if have is None:
        return {}
    images = _open(folder, have).images
    places = enumerate(zip(have.sop_uids, have.digests, strict=True))
    return {key: images[place] for place, key in places if key[0]}


def _read_rows(folder: Path) -> _Rows | None:
    try:
        raw = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        return _Rows(raw["file"], tuple(raw["sop_uids"]), tuple(raw["digests"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "rows.json") from None
    except (ValueError, KeyError, TypeError):
        raise _corrupt("rows.json") from None


def _open(folder: Path, rows: _Rows) -> Store:
    try:
        images = np.load(folder / rows.file, mmap_mode="r") if rows.sop_uids else np.empty((0, 1, 1), DTYPE)
    except OSError as error:
        raise storage_error(error, rows.file) from None
    except ValueError:
        raise _corrupt(rows.file) from None
    if len(images) != len(rows.sop_uids):
        raise _corrupt(rows.file)
    return Store(images, rows.sop_uids)


def _corrupt(name: str) -> StorageError:
    return StorageError(
        name,
        "the store is damaged",
        "Remove the folder `store`; it is built again from the images",
        code="storage-corrupt",
    )


def _next_file(have: _Rows | None) -> str:
    number = 0 if have is None else int(have.file.removeprefix("images-").removesuffix(".npy")) + 1
    return f"images-{number}.npy"


def _write_rows_json(folder: Path, rows: _Rows) -> None:
    with whole_file(folder / "rows.json") as file:
        file.write(json.dumps(asdict(rows)).encode())


def _remove_others(folder: Path, current: str) -> None:
    for old in folder.glob("images-*.npy"):
        if old.name != current:
            old.unlink(missing_ok=True)


def _zero(path: Path, places: list[int]) -> None:
    """Write zeros over rows of an array, on the disk and not through a map, which a full disk would break."""
    array = np.load(path, mmap_mode="r")
    size = array[0].nbytes
    try:
        with path.open("r+b") as file:
            for place in places:
                file.seek(array.offset + place * size)
                file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path.name) from None
