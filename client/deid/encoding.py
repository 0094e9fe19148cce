"""Bytes of a file from a data set of ours: Explicit VR Little Endian, empty preamble, nothing guessed.

Our data sets hold their elements as bytes already (`element`), so writing one is joining them. Whatever is not
bytes yet, a sequence or a private number, pydicom's own writer turns into bytes. The result equals what
`pydicom.dcmwrite` makes of the same data set, byte for byte (a test compares).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

from client.deid.tags import tag as tag_of

_LONG: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT"))
"""VRs with a length of 32 bits (PS3.5 7.1.2)."""
_FORMATS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_SHORT_HEAD: Final = struct.Struct("<HH2sH")
_LONG_HEAD: Final = struct.Struct("<HH2s2xI")
_UNDEFINED: Final = 0xFFFFFFFF
_GROUP_LENGTH: Final = 0x00020000
_KINDS: Final = 8192
"""Heads of elements remembered."""


def element(tag: int, vr: str, value: Any) -> RawDataElement:
    """An element as it will be written.

    Args:
        tag: as a number.
        vr: its value representation.
        value: text, a number, bytes, or a list of texts or numbers.

    Raises:
        ValueError: a text that is not ASCII, a number that its VR cannot hold.
    """
    try:
        raw = _raw(vr, value if isinstance(value, list) else [value])
    except struct.error:
        raise ValueError("a number does not fit its value representation") from None
    return RawDataElement(tag_of(tag), vr, len(raw), raw, 0, False, True)


def _raw(vr: str, values: Sequence[Any]) -> bytes:
    if vr in _FORMATS and not isinstance(values[0], bytes):
        return struct.pack(f"<{len(values)}{_FORMATS[vr]}", *values)
    if isinstance(values[0], bytes):
        return values[0] + b"\0" * (len(values[0]) % 2)
    raw = "\\".join(map(str, values)).encode("ascii")
    return raw + (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)


def encode(target: Dataset) -> bytes:
    """The bytes of a file: empty preamble, our file meta, Explicit VR Little Endian."""
    meta = b"".join(_pieces(target.file_meta))
    length = element(_GROUP_LENGTH, "UL", len(meta))
    head = _head(_GROUP_LENGTH, "UL", length.length)
    return b"".join((b"\0" * 128, b"DICM", head, length.value or b"", meta, *_pieces(target)))


def _in_order(dataset: Dataset) -> list[RawDataElement | DataElement]:
    items = dict(zip(map(int, dataset.keys()), dataset.values(), strict=True))
    items.pop(_GROUP_LENGTH, None)
    return [items[tag] for tag in sorted(items)]


def _pieces(dataset: Dataset) -> list[bytes]:
    """Heads and values in the order of the tags; pixels are copied once only, where all is joined."""
    found: list[bytes] = []
    for item in _in_order(dataset):
        value = item.value
        if not isinstance(item, RawDataElement) or value is None or item.length == _UNDEFINED:
            found.append(_by_pydicom(item))
            continue
        head = _head(item.tag, item.VR or "", len(value))
        found += (head, value) if head else (_by_pydicom(item),)
    return found


@lru_cache(maxsize=_KINDS)
def _head(tag: int, vr: str, size: int) -> bytes:
    """What stands before a value; empty where no such value can be written so."""
    if vr in _LONG:
        return _LONG_HEAD.pack(tag >> 16, tag & 0xFFFF, vr.encode(), size)
    return b"" if size > 0xFFFF else _SHORT_HEAD.pack(tag >> 16, tag & 0xFFFF, vr.encode(), size)


def _by_pydicom(item: RawDataElement | DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, item)
    return bytes(buffer.getvalue())
