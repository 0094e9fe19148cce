"""Tensors as bytes in the safetensors format, written piece by piece and looked at where they lie.

`safetensors` itself copies every tensor on its way in and out. Here a file is written one tensor after the other,
and read as views into bytes or into a memory-mapped file, of which only what is in use takes memory: whoever works
through a tensor gives the pages of each slice back before it looks at the next. The bytes are those any safetensors
reader understands.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.errors import StorageError
from common.types import Arrays

Buffer = bytes | memoryview | mmap.mmap
Blob = Buffer
"""A message's bytes, in memory or in a mapped file."""
METADATA: Final = "__metadata__"
SLICE: Final = 1 << 18
"""Values worked through at once, where a whole tensor might not fit twice."""
PORTION: Final = 1 << 20
"""Bytes written or hashed at once."""
_ALIGNED: Final = 8
_WIDE: Final = {"F64": "<f8", "I64": "<i8", "U64": "<u8", "F32": "<f4", "I32": "<i4", "U32": "<u4"}
_NARROW: Final = {"F16": "<f2", "I16": "<i2", "U16": "<u2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
_DTYPES: Final[Mapping[str, str]] = {**_WIDE, **_NARROW}
_NAMES: Final = {np.dtype(code): name for name, code in _DTYPES.items()}


class Pages(mmap.mmap):
    """A file of ours that is mapped and shared, so that its pages can be given back at any time and nothing is lost."""


def pieces(arrays: Arrays, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The header, then tensor by tensor in portions; wide dtypes first, so that each is aligned.

    A portion of a mapped file is good until the next one is asked for.

    Raises:
        ValueError: a dtype that the format has no name for.
    """
    header: dict[str, Any] = {METADATA: dict(metadata)}
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    begin = 0
    for name in order:
        array = arrays[name]
        code = _NAMES.get(array.dtype.newbyteorder("<"))
        if code is None or name == METADATA:
            raise ValueError(name)
        end = begin + array.nbytes
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        array = np.asarray(arrays[name], order="C")
        flat = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1)
        yield from portions(flat.view(np.uint8).data)


def portions(buffer: Buffer) -> Iterator[memoryview]:
    """These bytes, `PORTION` at a time; pages of a mapped file are given back after each."""
    whole = memoryview(buffer)
    if len(whole) <= PORTION:
        yield whole
        give_back(whole)
        return
    for begin in range(0, len(whole), PORTION):
        yield whole[begin : begin + PORTION]
        give_back(whole)


def views(buffer: Buffer) -> dict[str, npt.NDArray[Any]]:
    """Every tensor as a view into these bytes, in the header's order; nothing is copied.

    Raises:
        ValueError: for anything that is not exactly one safetensors file.
    """
    size = int.from_bytes(bytes(buffer[:8]), "little")
    whole = memoryview(buffer)
    if len(whole) < 8 + size:
        raise ValueError("header")
    header = json.loads(bytes(buffer[8 : 8 + size]))
    found: dict[str, npt.NDArray[Any]] = {}
    reached = 0
    try:
        spans = [(name, *_span(said)) for name, said in header.items() if name != METADATA]
    except (AttributeError, KeyError, TypeError):
        raise ValueError("header") from None
    for name, dtype, shape, begin, end in sorted(spans, key=lambda span: span[3:]):
        if begin != reached or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(name)
        reached = end
        start = 8 + size + begin
        if start + (end - begin) > len(whole):
            raise ValueError(name)
        found[name] = np.frombuffer(whole[start : start + end - begin], dtype).reshape(shape)
    if 8 + size + reached != len(whole):
        raise ValueError("length")
    return {name: found[name] for name in header if name != METADATA}


def _span(said: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    begin, end = said["data_offsets"]
    shape = said["shape"]
    if set(said) != {"dtype", "shape", "data_offsets"} or not isinstance(shape, list):
        raise ValueError("tensor")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("tensor")
    return np.dtype(_DTYPES[said["dtype"]]), tuple(shape), begin, end


class Mapped(Mapping[str, npt.NDArray[Any]]):
    """Tensors in a mapped file; memory holds the one that was asked for last, and what others still look at."""

    def __init__(self, pages: Blob, found: Mapping[str, npt.NDArray[Any]]) -> None:
        self._pages = pages
        self._found = dict(found)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The tensor of this name; the pages of others go back to the system, which has them on disk."""
        found = self._found[name]
        give_back(self._pages)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def ordered(self, names: Iterable[str]) -> Mapped:
        """The same tensors in another order.

        Raises:
            KeyError: for a name that is not there.
        """
        return Mapped(self._pages, {name: self._found[name] for name in names})


class Made(Mapping[str, npt.NDArray[Any]]):
    """Tensors that are made anew each time one is asked for, so that no two of them are held."""

    def __init__(self, names: Iterable[str], make: Callable[[str], npt.NDArray[Any]]) -> None:
        self._names = tuple(names)
        self._make = make

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """One tensor.

        Raises:
            KeyError: for a name that is not there.
        """
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def give_back(*looked_at: Buffer | npt.NDArray[Any]) -> None:
    """Let the system take back the memory of mapped files under these; what was written in them stays in the file.

    Of a file of no more than `PORTION` it is left where it is: to have it back takes longer than it is worth.
    """
    for one in looked_at:
        pages = under(one)
        if pages is not None and len(pages) > PORTION:
            pages.madvise(mmap.MADV_DONTNEED)


def under(held: Buffer | npt.NDArray[Any]) -> Pages | None:
    """The mapped file in which these bytes or values lie; None where they lie in memory."""
    below: object = held
    while isinstance(below, (np.ndarray, memoryview)):
        below = below.base if isinstance(below, np.ndarray) else below.obj
    return below if isinstance(below, Pages) else None


def mapped(path: Path, offset: int = 0) -> tuple[Blob, Mapped]:
    """A safetensors file that begins at `offset` of a file, a multiple of eight, for reading.

    Raises:
        StorageError: when the file cannot be opened.
        ValueError: when it is not one.
    """
    held = pages(path)
    return held, Mapped(held, views(memoryview(held)[offset:] if offset else held))


def pages(path: Path) -> Pages | bytes:
    """A file's content, mapped for reading; an empty file has none.

    Raises:
        StorageError: when the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            return Pages(file.fileno(), length, access=mmap.ACCESS_READ) if length else b""
    except OSError:
        raise StorageError(path.name, "it cannot be read", "Check the disk and rights") from None


def laid_down(parts: Iterable[bytes | memoryview], folder: Path) -> Pages:
    """Bytes in a nameless file of a folder, mapped for reading; the file goes with the map.

    Raises:
        StorageError: when the disk is full or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for part in parts:
                file.write(part)
            file.flush()
            return Pages(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        raise StorageError(folder.name, "it cannot be written", "Check free space and rights") from None


def zeros(schema: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike, folder: Path) -> Mapped:
    """Writable zeros of these names and shapes, in a nameless file of a folder.

    Raises:
        StorageError: when there is no room for them.
    """
    sizes = {name: np.dtype(dtype).itemsize * math.prod(shape) for name, shape in schema.items()}
    length = max(sum(sizes.values()), 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Room is taken now: a full disk that shows when a page is written would end the process without a word.
            os.posix_fallocate(file.fileno(), 0, length)
            pages = Pages(file.fileno(), length)
    except OSError:
        raise StorageError(folder.name, "it cannot be written", "Check free space and rights") from None
    whole, found, begin = memoryview(pages), {}, 0
    for name, shape in schema.items():
        found[name] = np.frombuffer(whole[begin : begin + sizes[name]], dtype).reshape(shape)
        begin += sizes[name]
    return Mapped(pages, found)
