"""The second scan: the bytes that were written, searched for everything that could name the source's patient.

It knows nothing of the profile. It takes from the raw source every identifier by its own list, and
looks for each in every element of the written bytes. One hit, or one byte that should not be there,
and the file stays in quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.deid.reader import Seen, Unreadable, walk
from client.deid.said import dates_in, said
from common.errors import FileRefused

SHORTEST: Final = 3
"""Characters of the shortest name or number that counts; initials and digits occur everywhere by chance."""
LONG: Final = 6
"""From this length on a token is looked for inside words, numbers and pixels too, not only as a whole word."""
CERTAIN: Final = 10
"""Digits from which on a number is looked for inside longer runs of digits; a shorter one meets our own
random UIDs by chance (six digits: one image in 500, measured)."""
_PERSONS: Final = frozenset(("PN",))
_IDENTIFIERS: Final = frozenset(
    [
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
        "DeviceSerialNumber",
        "GantryID",
        "DetectorID",
        "PlateID",
        "CassetteID",
        "PatientInsurancePlanCodeSequence",
        "MilitaryRank",
        "PatientReligiousPreference",
        "RegionOfResidence",
    ]
)
_PLACES: Final = frozenset(
    [
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
        "SendingApplicationEntityTitle",
        "SourceApplicationEntityTitle",
        "RetrieveAETitle",
        "PerformedStationAETitle",
        "ScheduledStationAETitle",
        "PerformedLocation",
    ]
)
_META: Final = frozenset((0x00, 0x01, 0x02, 0x03, 0x10, 0x12, 0x13))
_PIXELS: Final = (0x7FE0, 0x0010)
_NUMBERS: Final = frozenset(("DS", "IS"))
_BINARY: Final = frozenset(("US", "SS", "UL", "SL", "FD", "FL", "OB", "OW", "AT", "SQ"))
_OPEN: Final = frozenset(("LO", "SH", "LT", "ST", "UT", "UC", "PN"))
_WELL_KNOWN: Final = "1.2.840.10008."


@dataclass(frozen=True)
class Wanted:
    """What to look for, case folded: `words` as whole words, `parts` anywhere, `numbers` as whole runs of digits.

    `days` are YYYYMMDD and are met in any common writing; `said` comes from free text and private elements,
    and is looked for as whole words where text is open, not where DICOM defines the terms.
    """

    words: frozenset[str]
    parts: frozenset[str]
    numbers: frozenset[str]
    days: frozenset[str]
    said: frozenset[str] = frozenset()


def identifiers(source: Dataset) -> Wanted:
    """Every identifier of a source: nested, in private items and in its file meta as well."""
    tokens: set[str] = set()
    parts: set[str] = set()
    days: set[str] = set()
    vendor = {_fold(source.get(k)) for k in ("Manufacturer", "ManufacturerModelName")}
    for element in _all(source):
        texts = [_fold(v) for v in _values(element.value)]
        if element.VR in _PERSONS or element.keyword in _IDENTIFIERS:
            tokens.update(w for text in texts for w in _words(text))
            parts.update(text for text in texts if len(text) >= LONG)
        elif element.keyword in _PLACES or element.VR == "AE":
            places = [text for text in texts if not any(text in name for name in vendor)]
            parts.update(text for text in places if len(text) >= LONG)
            tokens.update(word for text in places if len(text) < LONG for word in _words(text))
        elif element.VR == "UI":
            parts.update(text for text in texts if text and not text.startswith(_WELL_KNOWN))
        elif element.VR in ("DA", "DT"):
            days.update(text[:8] for text in texts if re.fullmatch(r"\d{8}", text[:8]))
    words = {token for token in tokens if len(token) >= SHORTEST}
    parts |= {token for token in words if len(token) >= LONG}
    numbers = {part for part in parts if part.isdigit() and len(part) < CERTAIN}
    remarks = said(source)
    return Wanted(
        words=frozenset(words),
        parts=frozenset(parts - numbers),
        numbers=frozenset(numbers),
        days=frozenset(days | remarks.days),
        said=remarks.words,
    )


def check(data: bytes, wanted: Wanted) -> None:
    """Search a written file.

    Raises:
        FileRefused: `deid-verify`; it says what kind of thing was found, never what.
    """
    try:
        elements = list(walk(data))
    except Unreadable as error:
        raise _refused(f"the second scan could not walk it: {error}") from None
    _structure(elements)
    for seen in elements:
        if (seen.group, seen.element) == _PIXELS:
            continue
        _search(seen, wanted)
    _search_bytes(elements[-1].value, wanted)


def _structure(elements: list[Seen]) -> None:
    """Nothing private, no overlay, no curve, a file meta of seven elements, and pixels at the very end."""
    for seen in elements:
        if seen.group % 2 or seen.group in range(0x5000, 0x5100) or seen.group in range(0x6000, 0x6100):
            raise _refused("a private, curve or overlay element was written")
        if seen.group == 0x0002 and seen.element not in _META:
            raise _refused("file meta holds an element it should not")
    last = elements[-1]
    at_top = {(s.group, s.element): s.value for s in elements if not s.depth}
    sizes = [_us(at_top.get((0x0028, e))) for e in (0x0010, 0x0011, 0x0100)]
    frames = bytes(at_top.get((0x0028, 0x0008), b"1")).strip(b" \0") or b"1"
    size = sizes[0] * sizes[1] * sizes[2] // 8 * int(frames)
    if (last.group, last.element) != _PIXELS or len(last.value) != size + size % 2:
        raise _refused("the pixels are not the last element, or not of the announced size")
    stored, signed = (_us(at_top.get((0x0028, e))) for e in (0x0101, 0x0103))
    _unused_bits(last.value, sizes[2], stored, signed=bool(signed))


def _unused_bits(value: memoryview, allocated: int, stored: int, *, signed: bool) -> None:
    """Bits above the stored ones must say nothing: zero, or the sign once more."""
    words = np.frombuffer(value, dtype=f"<{'i' if signed else 'u'}{allocated // 8}")
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if signed else (0, 1 << stored)
    if words.size and not (low <= int(words.min()) and int(words.max()) < high):
        raise _refused("bits that belong to no pixel were written")


def _search(seen: Seen, wanted: Wanted) -> None:
    if seen.vr in _BINARY:
        _search_bytes(seen.value, wanted)
        return
    text = bytes(seen.value).decode("latin-1").casefold()
    numeric = seen.vr in _NUMBERS
    hit = any(part in text for part in wanted.parts)
    hit = hit or not wanted.numbers.isdisjoint(re.findall(r"\d+", text))
    if not numeric:
        words = _words(text)
        hit = hit or not wanted.words.isdisjoint(words)
        hit = hit or (seen.vr in _OPEN and seen.group != 0x0002 and not wanted.said.isdisjoint(words))
    if not numeric and seen.vr != "UI":  # our random UIDs and numbers meet eight digits by chance
        hit = hit or not wanted.days.isdisjoint(dates_in(text))
    if hit:
        raise _refused("an identifier of the patient, study or hospital is still in it")


def _search_bytes(value: memoryview, wanted: Wanted) -> None:
    """Binary values, pixels too: a token of six bytes meets a megabyte by chance once in 10^8."""
    raw = bytes(value).lower()
    if any(part.encode("utf-8") in raw for part in wanted.parts | wanted.numbers if len(part) >= LONG):
        raise _refused("an identifier of the patient, study or hospital is still in it")


def _all(source: Dataset) -> Iterator[Dataset]:
    yield from getattr(source, "file_meta", None) or ()
    yield from source.iterall()


def _values(value: object) -> Iterable[object]:
    """The values of an element; a person's name is one value, though it can be walked letter by letter."""
    if value is None or isinstance(value, (bytes, Dataset)):
        return ()
    return value if isinstance(value, (list, MultiValue)) else (value,)


def _fold(value: object) -> str:
    return str(value or "").strip(" \0").casefold()


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)


def _us(value: memoryview | None) -> int:
    return int.from_bytes(bytes(value or b""), "little")


def _refused(rule: str) -> FileRefused:
    return FileRefused(
        "a de-identified image",
        rule,
        "Report it: the original stays in quarantine and nothing was stored",
        code="deid-verify",
    )
