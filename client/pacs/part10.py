"""The little of a DICOM file that is written or read before a limited process opens it.

`preface` writes the preamble and file meta before an encoded data set that came over the network. `study_uid`
finds the study of an encoded data set by stepping over its first elements. Neither decodes a value, neither
recurses, and both are bounded: whatever an unknown sender put in, the answer comes soon and costs no memory.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import IO, Final

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_IMPLEMENTATION: Final = "2.25.193740284120917381174038463520918274651"
"""Our implementation class UID: a random number once drawn (PS3.5 B.2)."""
_LONG: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Value representations whose length has four bytes (PS3.5 table 7.1-1)."""
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_STUDY: Final = 0x0020000D
_MAX_ELEMENTS: Final = 10_000
_MAX_UID: Final = 64
_INFLATED: Final = 2**20


def preface(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Preamble and file meta of a file whose data set follows as it was sent."""
    elements = b"".join(
        (
            struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1",
            _uid(0x02, sop_class),
            _uid(0x03, sop_instance),
            _uid(0x10, syntax),
            _uid(0x12, _IMPLEMENTATION),
        )
    )
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements)) + elements


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")[:_MAX_UID]
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value


def study_uid(data_set: IO[bytes], syntax: str) -> str:
    """StudyInstanceUID of an encoded data set; empty when it is not found where it belongs.

    Args:
        data_set: seekable, at the first element.
        syntax: UID of the transfer syntax; all but the four native ones are explicit little endian.
    """
    source = data_set
    if syntax == DEFLATED:
        try:
            source = io.BytesIO(
                zlib.decompressobj(-zlib.MAX_WBITS).decompress(data_set.read(_INFLATED), _INFLATED)
            )
        except zlib.error:
            return ""
    walk = _Walk(source, ">" if syntax == EXPLICIT_BIG else "<", implicit=syntax == IMPLICIT_LITTLE)
    try:
        return walk.study()
    except (struct.error, OSError, OverflowError):
        return ""


@dataclass
class _Walk:
    """One pass over the headers of elements."""

    source: IO[bytes]
    order: str
    implicit: bool
    depth: int = 0

    def study(self) -> str:
        """The value at the top level, or empty once it can no longer come."""
        for _ in range(_MAX_ELEMENTS):
            tag, length, is_uid = self._header()
            if self.depth == 0 and tag >= _STUDY and tag not in (_ITEM, _ITEM_END, _SEQUENCE_END):
                return self._value(length) if tag == _STUDY and is_uid else ""
            self._pass(tag, length)
            if self.depth < 0:
                return ""
        return ""

    def _header(self) -> tuple[int, int, bool]:
        """Tag, length of the value, and whether a UID may stand there."""
        group, element = struct.unpack(f"{self.order}HH", self.source.read(4))
        tag = (group << 16) | element
        if self.implicit or group == 0xFFFE:
            return tag, struct.unpack(f"{self.order}I", self.source.read(4))[0], self.implicit
        kind = self.source.read(2)
        if kind in _LONG:
            return tag, struct.unpack(f"{self.order}xxI", self.source.read(6))[0], False
        return tag, struct.unpack(f"{self.order}H", self.source.read(2))[0], kind == b"UI"

    def _pass(self, tag: int, length: int) -> None:
        if tag in (_ITEM_END, _SEQUENCE_END):
            self.depth -= 1
        elif length == _UNDEFINED:
            self.depth += 1
        else:
            self.source.seek(length, io.SEEK_CUR)

    def _value(self, length: int) -> str:
        if length > _MAX_UID:
            return ""
        raw = self.source.read(length)
        return raw.decode("ascii", "replace").strip(" \0") if len(raw) == length else ""
