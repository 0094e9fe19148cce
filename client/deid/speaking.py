"""Which elements of a source can name somebody, and whether all of them are sound.

Only those that can are turned into Python values; the others, most of a header, are left as the parser found
them. What is damaged anywhere is refused all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.deid.plain import items_in
from common.errors import FileRefused

_IDENTIFIERS: Final = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "StudyID",
    "AdmissionID",
    "ServiceEpisodeID",
    "RequestedProcedureID",
    "ScheduledProcedureStepID",
    "PerformedProcedureStepID",
    "FillerOrderNumberImagingServiceRequest",
    "PlacerOrderNumberImagingServiceRequest",
    "IssuerOfPatientID",
    "MedicalRecordLocator",
    "PatientTelephoneNumbers",
    "MilitaryRank",
    "PatientReligiousPreference",
    "RegionOfResidence",
)
_DEVICES: Final = ("DeviceSerialNumber", "GantryID", "DetectorID", "PlateID", "CassetteID")
_PLACES: Final = (
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "PatientAddress",
    "RequestingService",
    "CurrentPatientLocation",
    "PatientInstitutionResidence",
    "PerformedStationName",
    "ScheduledStationName",
    "PerformedLocation",
)
LONGEST: Final = 1024
"""Bytes of private binary that is still read as text; a protocol of the machine is longer."""
_KINDS: Final = 8192
"""Kinds of elements, and short elements, remembered; a hostile file may hold any number of them."""
_SHORT: Final = 128
"""Bytes of a value that is worth remembering: the slices of a patient have most of theirs in common."""
_BYTES: Final = frozenset(("OB", "UN"))
_TEXT: Final = frozenset(("LO", "SH", "LT", "ST", "UT", "UC"))
_PROSE: Final = frozenset(("LT", "ST", "UT", "UR"))
_REMARK: Final = re.compile(
    r"(Comments?|Description|History|Reason\w*|ProtocolName|Alerts|Allergies|Occupation|Needs|State)$"
)
_ALWAYS: Final = frozenset(("PN", "UI", "DA", "DT", "AE", "LT", "ST", "UT", "UR"))
_BINARY_NUMBERS: Final = frozenset(
    ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OF", "OD", "OL", "OV", "OW")
)
_SIZES: Final = {
    **dict.fromkeys(
        [
            "AE",
            "AS",
            "CS",
            "DA",
            "DS",
            "DT",
            "IS",
            "LO",
            "LT",
            "OB",
            "PN",
            "SH",
            "SQ",
            "ST",
            "TM",
            "UC",
            "UI",
            "UN",
            "UR",
            "UT",
        ],
        1,
    ),
    **dict.fromkeys(["US", "SS", "OW"], 2),
    **dict.fromkeys(["UL", "SL", "FL", "AT", "OF", "OL"], 4),
    **dict.fromkeys(["FD", "OD", "OV", "SV", "UV"], 8),
}
"""Every VR, and the bytes of one of its values; a text may have any length."""
_DELIMITERS: Final = 0xFFFE
"""Group of items and delimiters, which are no elements."""
_DECIMALS: Final = re.compile(rb"[0-9eE+\-. \\\0]*")


def _tags(keywords: Iterable[str]) -> frozenset[int]:
    return frozenset(int(tag_for_keyword(keyword) or 0) for keyword in keywords)


IDENTIFIER_TAGS: Final = _tags(_IDENTIFIERS)
DEVICE_TAGS: Final = _tags(_DEVICES)
PLACE_TAGS: Final = _tags(_PLACES)


Elements = dict[int, "DataElement | RawDataElement"]


class Spoken(NamedTuple):
    """One element that can name somebody."""

    tag: int
    vr: str
    texts: tuple[str, ...]
    """Its values as they stand, padding included."""
    creator: str = ""
    """Of a private element: who defined it."""
    raw: bytes = b""
    """Of a name that is not ASCII: its bytes."""


def speaking(dataset: Dataset) -> Iterator[Spoken]:
    """Every element that can name somebody, nested ones too; all others are left as the parser found them.

    Raises:
        FileRefused: `parser-error`, at an element that is none.
    """
    yield from _spoken(dict(zip(map(int, dataset.keys()), dataset.values(), strict=True)), dataset)


class _NeedsParser(Exception):
    """A sequence holds what only pydicom can decode."""


def _spoken(items: Elements, dataset: Dataset | None) -> Iterator[Spoken]:
    """Of these elements, which are the data set's; without one, of a sequence that is read here.

    Raises:
        _NeedsParser: there is no data set, and something that its parser must decode.
    """
    for tag, item in items.items():
        vr, interesting, size = _kind(tag, item.VR)
        if not size or size > 1:
            _check_whole(size, item)
        if not interesting or _is_number(item):
            continue
        if vr == "SQ":
            plain = _nested(item)
            if plain is not None:
                yield from plain
                continue
            if dataset is None:
                raise _NeedsParser
            for inner in dataset[item.tag].value or ():
                yield from speaking(inner)
            continue
        creator = _creator(items, tag) if tag >> 16 & 1 else ""
        spoken = _plain(tag, vr, item, creator)
        if spoken is None:
            if dataset is None:
                raise _NeedsParser
            spoken = _decoded(tag, vr, dataset[item.tag], creator)
        yield spoken


def _nested(item: DataElement | RawDataElement) -> list[Spoken] | None:
    """What a plain sequence says, read from its bytes; None where a parser must read it."""
    if (
        not isinstance(item, RawDataElement)
        or item.VR != "SQ"
        or item.is_implicit_VR
        or not item.is_little_endian
    ):
        return None
    inside = items_in(item.value or b"")
    if inside is None:
        return None
    try:
        return [spoken for one in inside for spoken in _spoken({int(t): i for t, i in one.items()}, None)]
    except _NeedsParser:
        return None


def _meant(tag: int, vr: str) -> str:
    """The VR by which an element is read: a name, UID or date is one whatever VR its sender wrote over it."""
    try:
        known = str(dictionary_VR(tag))
    except KeyError:
        return vr
    return known if vr == "UN" or known in _ALWAYS else vr


def _plain(tag: int, vr: str, item: DataElement | RawDataElement, creator: str) -> Spoken | None:
    """The element read here, when its bytes are ASCII or none of text; None where a parser must decode them."""
    raw = item.value
    if not isinstance(raw, bytes):
        return None
    return _read_before(tag, vr, raw, creator) if len(raw) <= _SHORT else _read(tag, vr, raw, creator)


def _read(tag: int, vr: str, raw: bytes, creator: str) -> Spoken | None:
    if vr in _BYTES:
        text = raw[:LONGEST].rstrip(b"\0").decode("latin-1")
        speaks = len(raw) <= LONGEST and all(c.isprintable() or c.isspace() for c in text)
        return Spoken(tag, vr, (text,) if text and speaks else (), creator)
    if not raw.isascii() or b"\x1b" in raw:
        return None
    text = raw.decode("ascii")
    return Spoken(tag, vr, (text,) if vr in _PROSE else tuple(text.split("\\")), creator)


_read_before = lru_cache(maxsize=_KINDS)(_read)


def _decoded(tag: int, vr: str, element: DataElement, creator: str) -> Spoken:
    """The element as pydicom decodes it, in the character set that the file names."""
    value = element.value
    many = isinstance(value, (list, MultiValue))
    if isinstance(value, bytes):
        return Spoken(tag, vr, (value.decode("latin-1"),), creator, value)
    if value is None:
        return Spoken(tag, vr, (), creator)
    values = list(value) if many else [value]
    raw = b"\\".join(
        kept for one in values if isinstance(kept := getattr(one, "original_string", b""), bytes)
    )
    return Spoken(tag, vr, tuple(map(str, values)), creator, raw)


def _creator(items: Mapping[int, DataElement | RawDataElement], tag: int) -> str:
    """Who defined a private element: what stands where its block is reserved."""
    owner = items.get(tag & 0xFFFF0000 | (tag >> 8 & 0xFF))
    raw = owner.value if owner is not None else ""
    return (raw.decode("latin-1") if isinstance(raw, bytes) else str(raw)).strip(" \0")


class _Kind(NamedTuple):
    """What a tag and the VR that its sender wrote say of an element, whatever its value."""

    meant: str
    interesting: bool
    size: int
    """Bytes of one value; 0 where there is no such VR, or no such element."""


@lru_cache(maxsize=_KINDS)
def _kind(tag: int, said: str | None) -> _Kind:
    vr = _meant(tag, said or "UN")
    size = _SIZES.get(said, 0) if said is not None else 1
    return _Kind(vr, _interesting(tag, vr), 0 if tag >> 16 == _DELIMITERS else size)


def _check_whole(size: int, item: DataElement | RawDataElement) -> None:
    """An element that nobody reads must still be one: what is damaged in one place is not to be trusted in others.

    Raises:
        FileRefused: `parser-error`.
    """
    value = item.value
    if not size or (isinstance(value, bytes) and len(value) % size):
        raise FileRefused(
            "a file", "it is damaged", "Send the file again from its source", code="parser-error"
        )


def _interesting(tag: int, vr: str) -> bool:
    """Whether an element of this kind can name anybody; what is private can, unless it is made of binary numbers."""
    if vr == "SQ":
        return True
    if tag >> 16 & 1:
        return vr not in _BINARY_NUMBERS
    if vr in _ALWAYS or tag in IDENTIFIER_TAGS | PLACE_TAGS | DEVICE_TAGS:
        return True
    return is_remark(tag, vr)


@lru_cache(maxsize=_KINDS)
def is_remark(tag: int, vr: str) -> bool:
    """Whether a public attribute is meant for free text."""
    return vr in _PROSE or (vr in _TEXT and bool(_REMARK.search(keyword_for_tag(tag))))


def _is_number(item: DataElement | RawDataElement) -> bool:
    """Whether a private decimal is one, and no word in its place."""
    return item.VR in ("DS", "IS") and isinstance(item.value, bytes) and bool(_DECIMALS.fullmatch(item.value))
