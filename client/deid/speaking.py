"""Which elements of a source can name somebody, and whether all of them are sound.

Only those that can are turned into Python values; the others, most of a header, are left as the parser found
them. What is damaged anywhere is refused all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from client.deid.said import is_remark
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


def speaking(dataset: Dataset) -> Iterator[DataElement]:
    """Every element that can name somebody, nested ones too; all others are left as the parser found them."""
    for item in list(dataset.values()):
        _check_sound(item)
        if not _interesting(int(item.tag), item.VR) or _is_number(item):
            continue
        element = dataset[item.tag]
        if element.VR != "SQ":
            yield element
            continue
        for inner in element.value or ():
            yield from speaking(inner)


def _check_sound(item: DataElement | RawDataElement) -> None:
    """An element that nobody reads must still be one: what is damaged in one place is not to be trusted in others.

    Raises:
        FileRefused: `parser-error`.
    """
    vr, value = item.VR, item.value
    size = _SIZES.get(vr, 0) if vr is not None else 1
    odd = size > 1 and isinstance(value, bytes) and len(value) % size
    if not size or odd or item.tag >> 16 == _DELIMITERS:
        raise FileRefused(
            "a file", "it is damaged", "Send the file again from its source", code="parser-error"
        )


@cache
def _interesting(tag: int, vr: str | None) -> bool:
    """Whether an element of this kind can name anybody; what is private can, unless it is made of binary numbers."""
    if vr is None or vr == "SQ":
        return True
    if tag >> 16 & 1:
        return vr not in _BINARY_NUMBERS
    if vr in _ALWAYS or tag in IDENTIFIER_TAGS | PLACE_TAGS | DEVICE_TAGS:
        return True
    return vr in ("LO", "SH", "UC") and is_remark(keyword_for_tag(tag), vr)


def _is_number(item: DataElement | RawDataElement) -> bool:
    """Whether a private decimal is one, and no word in its place."""
    return item.VR in ("DS", "IS") and isinstance(item.value, bytes) and bool(_DECIMALS.fullmatch(item.value))
