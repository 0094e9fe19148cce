"""The plainest of files read without a detour: Explicit VR Little Endian, every length given, tags in order.

Most of an archive is so. What comes out equals what `pydicom.dcmread` gives, to the last field; where a file is
anything else, or anything about it is unusual, nothing comes out, and pydicom reads it. (Tests compare the two on
every file there is and on damaged ones.)
"""

from __future__ import annotations

import io
import re
import struct
from functools import lru_cache
from typing import Any, Final

from pydicom import config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat
from pydicom.values import multi_string

from client.deid.tags import tag

_VRS: Final = {
    **{vr: (vr.decode(), True) for vr in b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()},
    **{
        vr: (vr.decode(), False)
        for vr in b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
    },
}
"""As it stands in a file: its name, and whether its length has 32 bits."""
_HEAD: Final = struct.Struct("<HH2sH").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from
_META_AT: Final = 132
_GROUP_LENGTH: Final = 0x00020000
_SYNTAX: Final = 0x00020010
_CHARSET: Final = 0x00080005
_TERMS: Final = re.compile(rb"(ISO_IR \d{1,3}|ISO 2022 IR \d{1,3}|GB18030|GBK|\\| )*")
"""What the standard calls its character sets; anything else is for pydicom to make sense of."""
_WORDS: Final = frozenset(("CS", "SH", "LO", "DA", "AS", "AE"))
_PLAIN_WORD: Final = re.compile(rb"[!-\[\]-~][ -\[\]-~]*\0?")
"""Printable, without a backslash, not beginning with a blank."""
_PLAIN_CODES: Final = re.compile(rb"[!-~][ -~]*\\[ -~]*\0?")
"""The same, several."""
_DECIMAL: Final = rb"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,2})?"
_DECIMALS: Final = re.compile(rb"%b(\\%b)* ?" % (_DECIMAL, _DECIMAL))
"""One number or several, as most are written."""
_ITEM: Final = b"\xfe\xff\x00\xe0"
_FIRST: Final = 0x00080000
_DELIMITERS: Final = 0xFFFE
"""Group of items and their ends, which are no elements."""

Elements = dict[BaseTag, RawDataElement]


class _Glancing(Dataset):  # type: ignore[misc] # pydicom gives its classes no types that mypy follows
    """A data set that gives a word or a number without making an object of its element first."""

    def get(self, key: Any, default: Any = None) -> Any:
        """As pydicom's, and equal to it."""
        known = _tag_of(key) if isinstance(key, str) else None
        item = None if known is None else self._dict.get(known)
        if isinstance(item, RawDataElement):
            value = _simple(item)
            if value is not None:
                return value
        return default if item is None and known is not None else super().get(key, default)

    def __contains__(self, name: Any) -> bool:
        """As pydicom's, and equal to it."""
        known = _tag_of(name) if isinstance(name, str) else None
        return bool(super().__contains__(name)) if known is None else known in self._dict

    def __getattr__(self, name: str) -> Any:
        """As pydicom's, and equal to it; asked for keywords only, all else is found before."""
        known = _tag_of(name)
        item = None if known is None else self._dict.get(known)
        value = _simple(item) if isinstance(item, RawDataElement) else None
        return super().__getattr__(name) if value is None else value


class Header(_Glancing):
    """A data set in memory, read by glances."""


class _Meta(_Glancing, FileMetaDataset):  # type: ignore[misc] # see above
    """What a plain file says of itself, read by glances."""


class PlainDataset(_Glancing, FileDataset):  # type: ignore[misc] # see above
    """A plain file, read by glances."""


def _attributes_of(made: Dataset) -> tuple[dict[str, Any], dict[str, dict[Any, Any]]]:
    """What pydicom gives a new data set: what may be shared, and the tables of which each has its own."""
    tables = {name: value for name, value in vars(made).items() if isinstance(value, dict)}
    return {name: value for name, value in vars(made).items() if name not in tables}, tables


_OF_META: Final = _attributes_of(FileMetaDataset())
_OF_FILE: Final = _attributes_of(FileDataset(io.BytesIO(), {}, b"", FileMetaDataset(), False, True))


def _made(kind: type, attributes: tuple[dict[str, Any], dict[str, dict[Any, Any]]], **own: Any) -> Any:
    """A data set as its constructor makes it, with some attributes of its own; that takes 75 microseconds each time."""
    made: Any = object.__new__(kind)
    shared, tables = attributes
    vars(made).update({**shared, **{name: dict(table) for name, table in tables.items()}, **own})
    return made


@lru_cache(maxsize=1024)
def _tag_of(keyword: str) -> BaseTag | None:
    number = tag_for_keyword(keyword)
    return None if number is None else tag(number)


def _simple(item: RawDataElement) -> Any:
    """The value of an element with one plain word or UID, or with plain numbers; None for any other."""
    raw = item.value
    if not raw or not isinstance(raw, bytes):
        return None
    if item.VR == "US" and len(raw) == 2:
        return int.from_bytes(raw, "little")
    if item.VR == "DS" and _DECIMALS.fullmatch(raw):
        return multi_string(raw.decode("ascii"), DSfloat)
    if item.VR == "CS" and _PLAIN_CODES.fullmatch(raw):
        return multi_string(raw.decode("ascii"))
    if (item.VR not in _WORDS and item.VR != "UI") or not _PLAIN_WORD.fullmatch(raw):
        return None
    text = raw.decode("ascii").rstrip(" \0")
    return UID(text, config.IGNORE) if item.VR == "UI" else text


def read_plain(data: bytes) -> FileDataset | None:
    """The data set of a plain file, or None for any other.

    Args:
        data: the whole file, with its preamble.
    """
    if data[128:_META_AT] != b"DICM" or data[_META_AT : _META_AT + 8] != b"\2\0\0\0UL\4\0":
        return None
    end = _META_AT + 12 + _LENGTH(data, _META_AT + 8)[0]
    meta = elements_in(data, _META_AT, end) if end <= len(data) else None
    if meta is None or not all(int(one) >> 16 == 2 for one in meta):
        return None
    syntax = meta.get(tag(_SYNTAX))
    if syntax is None or (syntax.value or b"").rstrip(b"\0") != ExplicitVRLittleEndian.encode():
        return None
    found = elements_in(data, end, len(data))
    if found is None or any(n < _FIRST or n >> 16 == _DELIMITERS for n in map(int, found)):
        return None
    charset = found.get(tag(_CHARSET))
    if charset is not None and not _TERMS.fullmatch(charset.value or b""):
        return None
    encodings = default_encoding if charset is None else _encodings(charset)
    dataset: FileDataset = _made(
        PlainDataset,
        _OF_FILE,
        buffer=io.BytesIO(),
        _dict=found,
        preamble=data[:128],
        file_meta=_made(_Meta, _OF_META, _dict=meta, _read_implicit=False, _read_little=True),
        _read_implicit=False,
        _read_little=True,
        _read_charset=encodings,
    )
    return dataset


def elements_in(data: bytes, at: int, end: int) -> Elements | None:
    """The elements between two places, which they fill exactly and in the order of their tags; else None."""
    found: Elements = {}
    last = -1
    while at < end:
        if end - at < 8:
            return None
        group, element, said, length = _HEAD(data, at)
        at += 8
        known = _VRS.get(said)
        if known is None:
            return None
        vr, long = known
        if long:
            if end - at < 4:
                return None
            (length,) = _LENGTH(data, at)
            at += 4
        number = group << 16 | element
        if number <= last or length > end - at:  # also a length that is not given
            return None
        last = number
        value = data[at : at + length] if length else empty_value_for_VR(vr, raw=True)
        key = tag(number)
        found[key] = RawDataElement(key, vr, length, value, at, False, True)
        at += length
    return found if at == end else None


def items_in(raw: bytes) -> list[Elements] | None:
    """The items of a sequence whose lengths are all given; None for any other."""
    found: list[Elements] = []
    at = 0
    while at < len(raw):
        if len(raw) - at < 8 or raw[at : at + 4] != _ITEM:
            return None
        end = at + 8 + _LENGTH(raw, at + 4)[0]
        item = elements_in(raw, at + 8, end) if end <= len(raw) else None
        if item is None:
            return None
        found.append(item)
        at = end
    return found


def _encodings(charset: RawDataElement) -> list[str]:
    return list(_encodings_of(charset.value or b""))


@lru_cache(maxsize=64)
def _encodings_of(raw: bytes) -> tuple[str, ...]:
    named = RawDataElement(tag(_CHARSET), "CS", len(raw), raw, 0, False, True)
    return tuple(convert_encodings(convert_raw_data_element(named).value))
