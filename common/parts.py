"""A message as the arrays of a Flower record: one, or several of bounded size where it is long.

Flower moves an array as objects of its own size and puts them together again. With arrays of `PART` bytes neither side
holds a second and third copy of a whole model while it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from common.tensors import Blob, under

RECORD: Final = "consilium"
PART: Final = 5 << 20
"""Bytes of one array at most: one of the pieces of 5 MiB in which Flower moves an array. A longer one saves an object here and there,
and is in memory as a whole, several times over, wherever it is hashed or taken apart."""
LARGE: Final = 4 << 20
"""A message of more bytes lies in a file rather than in memory, wherever it can."""
_STYPE: Final = "consilium/1"
_MESSAGE: Final = "message"


def array_of(blob: bytes | memoryview) -> Array:
    """These bytes as an array of ours; those of a mapped file stay there, as far as Flower's own code is concerned."""
    array = Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=b"")
    array.data = cast("bytes", blob)
    return array


def parts(blob: Blob, *, mapped: bool = False) -> Iterator[tuple[str, Array]]:
    """A message as arrays: one, or `message`, `message.1`, ... of `PART` bytes each but the last.

    Args:
        blob: the message.
        mapped: leave what lies in a mapped file there; else the arrays hold copies, which any grid can take.
    """
    for number, begin in enumerate(range(0, max(len(blob), 1), PART)):
        part = blob if len(blob) <= PART else memoryview(blob)[begin : begin + PART]
        stays = mapped and under(part) is not None
        yield (
            f"{_MESSAGE}.{number}" if number else _MESSAGE,
            array_of(memoryview(part) if stays else bytes(part)),
        )


def parts_in(arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
    """The parts of a message, in order; nothing is copied.

    Raises:
        KeyError: where there is no message.
        ValueError: for arrays that are not ours.
    """
    found = [bytes_of(arrays[_MESSAGE])]
    while (name := f"{_MESSAGE}.{len(found)}") in arrays:
        found.append(bytes_of(arrays[name]))
    return found


def joined(held: Sequence[bytes | memoryview]) -> Blob:
    """A message from its parts; not copied where it is one, or where they lie side by side in a mapped file."""
    if len(held) == 1:
        return held[0]
    pages = under(held[0])
    if pages is not None and all(under(part) is pages for part in held):
        begin, whole = _address(held[0]) - _address(pages), 0
        for part in held:
            if _address(part) - _address(pages) != begin + whole:
                break
            whole += len(part)
        else:
            return memoryview(pages)[begin : begin + whole]
    return b"".join(held)


def _address(held: Any) -> int:
    return int(np.frombuffer(held, np.uint8).ctypes.data)


def bytes_of(array: Array) -> bytes | memoryview:
    """What `array_of` was given.

    Raises:
        ValueError: for an array that is not ours.
    """
    held: object = array.data
    if array.stype != _STYPE or not isinstance(held, bytes | memoryview):
        raise ValueError("array")
    return held


def enveloped(records: RecordDict, envelope: bytes) -> RecordDict:
    """The same message under another envelope, or under none where that is empty; its parts are not copied."""
    arrays = {n: array for n, array in records.array_records[RECORD].items() if n.startswith(_MESSAGE)}
    if envelope:
        arrays["envelope"] = array_of(envelope)
    return RecordDict({RECORD: recorded(arrays)})


def recorded(arrays: Mapping[str, Array]) -> ArrayRecord:
    """These very arrays as a record: made the usual way it would hold others, whose digests Flower works out anew."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record
