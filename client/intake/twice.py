"""An element that stands twice in one data set: the parser shows the last, and nobody would look at the first.

The bytes are walked here, in any of DICOM's uncompressed forms, only as far as they can be followed; what cannot be
followed is the parser's to refuse. Sequences are gone into wherever the parser would.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import Struct
from typing import Final

from pydicom.datadict import dictionary_VR

from common.errors import FileRefused

_LONG: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_META_GROUP: Final = b"\2\0"
_PIXELS: Final = 0x7FE00010
DEEPEST: Final = 64
"""Sequences within sequences that are followed; the parser gives up later, and such a file is refused then."""


class _Lost(Exception):
    """The bytes cannot be followed any further."""


@dataclass(frozen=True)
class Form:
    """How a data set is written."""

    implicit: bool
    little: bool


EXPLICIT: Final = Form(implicit=False, little=True)


@dataclass(frozen=True)
class _Head:
    tag: int
    sequence: bool
    unknown: bool
    """Whether what is inside is written in implicit form, as in UN."""
    pixels: bool
    """Whether its items, if it has any, are fragments of compressed pixels."""
    length: int
    at: int
    """Where its value begins."""


def check_once(data: bytes, at: int, form: Form) -> None:
    """See that no element stands twice, in the data set that begins here or in any of its sequences.

    Args:
        data: the whole file, inflated.
        at: where the data set begins.
        form: how it is written.

    Raises:
        FileRefused: `duplicate-element`.
    """
    try:
        _Walk(data, form).dataset(at, len(data), 0)
    except (_Lost, struct.error):
        return


def check_items(raw: bytes) -> None:
    """The same for the items of a sequence in Explicit VR Little Endian.

    Raises:
        FileRefused: `duplicate-element`.
    """
    try:
        _Walk(raw, EXPLICIT).items(0, len(raw), 1)
    except (_Lost, struct.error):
        return


def duplicate() -> FileRefused:
    """The refusal of a file that says one thing twice."""
    return FileRefused(
        "a file",
        "an element stands in it twice, and readers disagree about which one counts",
        "Export it again with one value for each element",
        code="duplicate-element",
    )


class _Walk:
    def __init__(self, data: bytes, form: Form) -> None:
        self._data = data
        self._form = form
        order = "<" if form.little else ">"
        self._tag = Struct(order + "HH").unpack_from
        self._short = Struct(order + "H").unpack_from
        self._word = Struct(order + "I").unpack_from

    def dataset(self, at: int, end: int, depth: int) -> int:
        """Walk elements up to `end` or to the end of an item; where the next thing begins."""
        seen: set[int] = set()
        while at + 8 <= end:
            head = self.head(at, end)
            if head.tag == _ITEM_END:
                return head.at
            if head.tag in seen:
                raise duplicate()
            seen.add(head.tag)
            at = self._past(head, end, depth)
        return at

    def _past(self, head: _Head, end: int, depth: int) -> int:
        """Past the value of an element, having gone into it where it is a sequence."""
        if head.length == _UNDEFINED or head.sequence:
            if depth >= DEEPEST:
                raise _Lost
            stop = end if head.length == _UNDEFINED else head.at + head.length
            if stop > end:
                raise _Lost
            walk = _Walk(self._data, Form(implicit=True, little=True)) if head.unknown else self
            past = walk.items(head.at, stop, depth + 1, enter=not head.pixels)
            return past if head.length == _UNDEFINED else stop
        if head.at + head.length > end:
            raise _Lost
        return head.at + head.length

    def items(self, at: int, end: int, depth: int, *, enter: bool = True) -> int:
        """Walk the items of a sequence, or step over the fragments of compressed pixels."""
        while at + 8 <= end:
            tag, length = self._number(at), self._word(self._data, at + 4)[0]
            at += 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise _Lost
            stop = end if length == _UNDEFINED else at + length
            if stop > end:
                raise _Lost
            at = self._item(at, stop, depth, defined=length != _UNDEFINED) if enter else stop
        return at

    def _item(self, at: int, stop: int, depth: int, *, defined: bool) -> int:
        try:
            past = self.dataset(at, stop, depth)
        except _Lost:
            if not defined:
                raise
            return stop  # its inside cannot be followed, what comes after it can
        return stop if defined else past

    def _number(self, at: int) -> int:
        group, element = self._tag(self._data, at)
        return int(group) << 16 | int(element)

    def head(self, at: int, end: int) -> _Head:
        """The element that begins here."""
        tag = self._number(at)
        if self._form.implicit or tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            length = self._word(self._data, at + 4)[0]
            return _Head(tag, _is_sequence(tag), False, tag == _PIXELS, length, at + 8)
        vr = self._data[at + 4 : at + 6]
        if vr in _LONG:
            if at + 12 > end:
                raise _Lost
            length = self._word(self._data, at + 8)[0]
            hidden = vr == b"UN" and (length == _UNDEFINED or _is_sequence(tag))
            return _Head(tag, vr == b"SQ" or hidden, hidden, vr in (b"OB", b"OW"), length, at + 12)
        if not vr.isalpha():
            raise _Lost
        return _Head(tag, False, False, False, self._short(self._data, at + 6)[0], at + 8)


def _is_sequence(tag: int) -> bool:
    try:
        return str(dictionary_VR(tag)) == "SQ"
    except KeyError:
        return False


def end_of_meta(data: bytes, at: int) -> int:
    """Where the data set begins behind file meta that begins here, having seen that nothing of it stands twice.

    Raises:
        FileRefused: `duplicate-element`.
    """
    walk, seen = _Walk(data, EXPLICIT), set[int]()
    try:
        while data[at : at + 2] == _META_GROUP and at + 8 <= len(data):
            head = walk.head(at, len(data))
            if head.length == _UNDEFINED:
                return len(data)
            if head.tag in seen:
                raise duplicate()
            seen.add(head.tag)
            at = head.at + head.length
    except (_Lost, struct.error):
        return len(data)
    return min(at, len(data))
