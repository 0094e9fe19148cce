"""Table E.1-1 of PS3.15, edition 2026c, as the package dicom-anonymizer carries it.

The table says what the basic confidentiality profile demands of each attribute: X remove, Z empty or replace,
D replace, U another UID, and pairs where it depends on the image type. The package holds no columns for the
options, so those that we use are written here, with the standard's letters.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydicom.datadict import dictionary_description, keyword_for_tag, repeater_has_keyword

from common.errors import StorageError

EDITION: Final = "2026c"
_PACKAGE: Final = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
_LISTS: Final = {
    "X_TAGS": "X",
    "Z_TAGS": "Z",
    "D_TAGS": "D",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}
IN_WORDS: Final = {
    "X": "remove",
    "Z": "empty, or replace by a dummy",
    "D": "replace by a dummy",
    "U": "replace by another UID",
    "Z/D": "empty or replace, as the image type asks",
    "X/Z": "remove or empty, as the image type asks",
    "X/D": "remove or replace, as the image type asks",
    "X/Z/D": "remove, empty or replace, as the image type asks",
    "X/Z/U*": "remove, empty, or give other UIDs to what it names",
}
"""The standard's letters in words (PS3.15 table E.1-1a)."""
OPTION_CODES: Final = {"patient-characteristics": "113108", "dates": "113107", "private": "113111"}
"""Option of our profile to the code of the standard's option that allows it."""
_CHARACTERISTICS: Final = frozenset(("PatientSex", "PatientAge"))
_DATES: Final = frozenset(("StudyDate", "AcquisitionDate"))


@dataclass(frozen=True)
class Demand:
    """What the standard says of one attribute, or of a family of them."""

    tag: str
    """`(0010,0010)`; `x` stands for any digit of a repeating group, `(gggg,eeee)` for private ones."""
    keyword: str
    """Empty where the dictionary of this machine knows none yet."""
    name: str
    basic: str
    """The letters of the basic profile; empty where the table does not name the attribute."""
    option: str = ""
    """Option of our profile under which the standard lets more stay."""

    @property
    def number(self) -> int | None:
        """The tag as a number, None of a family."""
        digits = self.tag[1:5] + self.tag[6:10]
        return None if "x" in digits or "g" in digits else int(digits, 16)


PRIVATE: Final = Demand("(gggg,eeee) where gggg is odd", "", "Private Attributes", "X", "private")
"""The table's row for everything private, which the package leaves to its program."""


@cache
def table() -> tuple[Demand, ...]:
    """Every row of the table by tag, private attributes last.

    Raises:
        StorageError: the package is not installed, or is not the one whose table we know how to read.
    """
    try:
        module = importlib.import_module(_PACKAGE)
        rows = [(tuple(tag), basic) for name, basic in _LISTS.items() for tag in getattr(module, name)]
        every = {tuple(tag) for tag in module.ALL_TAGS}
        demands = [_demand(tag, basic) for tag, basic in rows]
    except (ImportError, AttributeError, TypeError, ValueError, KeyError):
        raise _missing("it is not installed, or of a release whose table is laid out otherwise") from None
    if {tag for tag, _ in rows} != every or len(rows) != len(every):
        raise _missing("its lists do not add up to its table")
    return (*sorted(demands, key=lambda demand: demand.tag), PRIVATE)


def demand_of(number: int) -> Demand | None:
    """The row that covers a tag, repeating groups and private ones included, or None where none does."""
    if number >> 16 & 1:
        return PRIVATE
    return next((row for row in table() if _covers(row.tag, number)), None)


def _covers(tag: str, number: int) -> bool:
    digits = f"{number:08X}"
    return all(a in ("x", b) for a, b in zip(tag[1:5] + tag[6:10], digits, strict=False))


def _demand(tag: tuple[int, ...], basic: str) -> Demand:
    if len(tag) == 2:
        number = tag[0] << 16 | tag[1]
        keyword = keyword_for_tag(number)
        option = (
            "patient-characteristics" if keyword in _CHARACTERISTICS else "dates" if keyword in _DATES else ""
        )
        name = dictionary_description(number) if keyword else "(newer than this machine's dictionary)"
        return Demand(f"({tag[0]:04X},{tag[1]:04X})", keyword, name, basic, option)
    group, element, group_mask, element_mask = tag
    digits = _masked(group, group_mask), _masked(element, element_mask)
    return Demand(f"({digits[0]},{digits[1]})", "", _family(group, element, element_mask), basic)


def _masked(value: int, mask: int) -> str:
    """A group or element in hexadecimal, `x` where the mask leaves a digit free."""
    digits = zip(f"{value:04X}", f"{mask:04X}", strict=True)
    return "".join(digit if free == "F" else "x" for digit, free in digits)


def _family(group: int, element: int, element_mask: int) -> str:
    number = group << 16 | element
    if element_mask == 0xFFFF and keyword_for_tag(number) and repeater_has_keyword(keyword_for_tag(number)):
        return str(dictionary_description(number))
    return "Curve Data" if group == 0x5000 else "a repeating group"


def _missing(rule: str) -> StorageError:
    return StorageError(
        "the package dicom-anonymizer",
        rule,
        "Install the packages that this release names in constraints.txt",
        code="standard-missing",
    )
