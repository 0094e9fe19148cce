"""A message as the arrays of a Flower record: one, or several of bounded size where it is long.

Flower moves an array as objects of its own size and puts them together again. With arrays of `PART` bytes neither side
holds a second and third copy of a whole model while it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from flwr.app import Array, ArrayRecord, RecordDict

from common.tensors import Blob

RECORD: Final = "consilium"
PART: Final = 4 << 20
"""Bytes of one array at most."""
_STYPE: Final = "consilium/1"
_MESSAGE: Final = "message"


def array_of(blob: bytes) -> Array:
    """These bytes as an array of ours."""
    return Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=blob)


def parts(blob: Blob) -> Iterator[tuple[str, Array]]:
    """A message as arrays: one, or `message`, `message.1`, ... of `PART` bytes each but the last."""
    for number, begin in enumerate(range(0, max(len(blob), 1), PART)):
        part = blob if len(blob) <= PART else blob[begin : begin + PART]
        yield f"{_MESSAGE}.{number}" if number else _MESSAGE, array_of(bytes(part))


def parts_in(arrays: Mapping[str, Array]) -> list[bytes]:
    """The parts of a message, in order; nothing is copied.

    Raises:
        KeyError: where there is no message.
        ValueError: for arrays that are not ours.
    """
    found = [bytes_of(arrays[_MESSAGE])]
    while (name := f"{_MESSAGE}.{len(found)}") in arrays:
        found.append(bytes_of(arrays[name]))
    return found


def bytes_of(array: Array) -> bytes:
    """What `array_of` was given.

    Raises:
        ValueError: for an array that is not ours.
    """
    if array.stype != _STYPE or not isinstance(array.data, bytes):
        raise ValueError("array")
    return array.data


def enveloped(records: RecordDict, envelope: bytes) -> RecordDict:
    """The same message under another envelope, or under none where that is empty; its parts are not copied."""
    arrays = {n: array for n, array in records.array_records[RECORD].items() if n.startswith(_MESSAGE)}
    if envelope:
        arrays["envelope"] = array_of(envelope)
    return RecordDict({RECORD: ArrayRecord(arrays)})
