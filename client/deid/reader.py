"""A second, independent reader: walks the bytes of a file we wrote, element by element, and trusts nobody.

It shares no code with the writer and knows one encoding only, Explicit VR Little Endian with defined
or delimited sequences. Whatever it cannot walk to the last byte is not a file we may keep.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

PREAMBLE: Final = 128
_LONG: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"))
_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_NAMES: Final = {vr: vr.decode() for vr in _LONG | _SHORT}
_HEAD: Final = struct.Struct("<HH2sH").unpack_from
"""Group, element, VR, and a length of 16 bits where the VR has one."""
_LENGTH: Final = struct.Struct("<I").unpack_from
_ITEM: Final = (0xFFFE, 0xE000)
_ENDS: Final = frozenset(((0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)))
_UNDEFINED: Final = 0xFFFFFFFF
_MAX_DEPTH: Final = 8


class Unreadable(Exception):
    """The bytes are not what our writer may produce; says where, never what."""


class Seen(NamedTuple):
    """One element: tag, value representation and raw value; sequences are given as their elements."""

    group: int
    element: int
    vr: str
    value: memoryview
    depth: int


def walk(data: bytes) -> Iterator[Seen]:
    """Every element of file meta and data set, nested ones too, in the order of the bytes.

    Raises:
        Unreadable: preamble not empty, an unknown VR, a length past the end, bytes left over.
    """
    if data[:PREAMBLE].strip(b"\0") or data[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise Unreadable("the preamble is not empty")
    view = memoryview(data)
    yield from _elements(view, PREAMBLE + 4, len(data), 0)


def _elements(view: memoryview, at: int, end: int, depth: int) -> Iterator[Seen]:
    if depth > _MAX_DEPTH:
        raise Unreadable("sequences are nested too deeply")
    while at < end:
        if end - at < 8:
            raise Unreadable("bytes are left over")
        group, element, vr, length = _HEAD(view, at)
        if vr in _SHORT:
            at += 8
        elif vr not in _LONG or end - at < 12:
            raise Unreadable("an unknown value representation")
        else:
            (length,) = _LENGTH(view, at + 8)
            at += 12
        if vr == b"SQ":
            stop = _end_of_sequence(at, end, length)
            yield Seen(group, element, "SQ", view[at:at], depth)
            yield from _items(view, at, stop, depth + 1)
            at = stop
            continue
        if length > end - at:
            raise Unreadable("an element runs past the end")
        yield Seen(group, element, _NAMES[vr], view[at : at + length], depth)
        at += length


def _end_of_sequence(at: int, end: int, length: int) -> int:
    if length == _UNDEFINED:
        raise Unreadable("a sequence has no length")
    if length > end - at:
        raise Unreadable("a sequence runs past the end")
    return at + length


def _items(view: memoryview, at: int, end: int, depth: int) -> Iterator[Seen]:
    while at < end:
        if end - at < 8:
            raise Unreadable("bytes are left over in a sequence")
        group, element, length = struct.unpack_from("<HHI", view, at)
        at += 8
        if (group, element) in _ENDS or (group, element) != _ITEM or length == _UNDEFINED:
            raise Unreadable("a sequence holds something other than items of known length")
        if length > end - at:
            raise Unreadable("an item runs past the end")
        yield from _elements(view, at, at + length, depth)
        at += length
