"""What a rule does to one value: the form it must have, and what becomes of it otherwise.

Text is matched whole against permitted values or a pattern; numbers must be numbers within bounds.
A value of the wrong form never passes: it is dropped, replaced by OTHER, or the file is refused, as the rule says.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue

from client.deid.profile import Rule
from client.deid.wanted import Wanted
from common.errors import FileRefused

OLDEST_AGE: Final = 90
"""Years; HIPAA's safe harbour joins all ages over 89 into one."""
_DECIMAL: Final = re.compile(r"[0-9eE+\-. ]{1,32}")
_DATE: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_AGE: Final = re.compile(r"(\d{1,3})([DWMY])")
_PER_YEAR: Final = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
TEXTS: Final = frozenset(("CS", "LO", "SH", "UI"))
"""Value representations of text that may be kept."""
_FORMATS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_WORDS: Final = {vr: struct.Struct(f"<{letter}") for vr, letter in _FORMATS.items()}
"""VR to how one of its binary numbers is read."""
_BINARY_TYPES: Final = (bytes, bytearray)
_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "US": (0, 2**16 - 1),
    "SS": (-(2**15), 2**15 - 1),
    "UL": (0, 2**32 - 1),
}
_ANY: Final = (-math.inf, math.inf)
_DS_CHARACTERS: Final = 16


def kept(rule: Rule, element: DataElement | RawDataElement, wanted: Wanted) -> Any:
    """The value as it may be written, or None when nothing of it may.

    Args:
        rule: a rule with action `keep`.
        element: the source's element; raw only in little endian and with a VR of the rule.
        wanted: what the source names; text that holds any of it is not kept.

    Raises:
        FileRefused: `deid-value`, when the rule says to refuse and the value has the wrong form.
    """
    values = _from_bytes(element) if isinstance(element, RawDataElement) else _listed(element.value)
    if not values:
        return None
    if isinstance(values[0], _BINARY_TYPES):
        return bytes(values[0])
    checked = [_one(rule, str(element.VR), value, wanted) for value in values]
    if any(value is None for value in checked):
        if rule.otherwise == "refuse":
            raise FileRefused(
                "an image",
                f"its {rule.keyword} has a form that the profile does not permit",
                "Correct it at its source, or leave the image out",
                code="deid-value",
            )
        if rule.otherwise != "other":
            return None
        checked = ["OTHER" if value is None else value for value in checked]
    return checked[0] if len(checked) == 1 else checked


def _listed(value: Any) -> Sequence[Any]:
    if value is None or (isinstance(value, (str, bytes, list, MultiValue)) and not len(value)):
        return ()
    if isinstance(value, (list, tuple, MultiValue)):
        return list(value)
    return (value,)


def _from_bytes(element: RawDataElement) -> Sequence[Any]:
    """The values as `_listed` gives them, read here because a parser's objects for numbers cost more than all else."""
    raw = element.value or b""
    kind = _WORDS.get(str(element.VR))
    if kind is not None:
        return [number for (number,) in kind.iter_unpack(raw)]
    if element.VR in ("OB", "OW"):
        return (raw,) if raw else ()
    text = raw.decode("latin-1").rstrip(" \0")
    return text.split("\\") if text else ()


def _one(rule: Rule, vr: str, value: Any, wanted: Wanted) -> Any:
    if vr not in rule.vr:
        return None
    return _text(rule, value, wanted) if vr in TEXTS else _number(rule, vr, value)


def _text(rule: Rule, value: Any, wanted: Wanted) -> str | None:
    text = str(value).strip(" \0")
    permitted = text in rule.values or (rule.pattern is not None and bool(rule.pattern.fullmatch(text)))
    if not permitted or not text.isascii():
        return None
    return None if names_somebody(rule, text, wanted) else text


def names_somebody(rule: Rule, text: str, wanted: Wanted) -> bool:
    """Whether a permitted text holds anything that the source names; of UIDs only long names and numbers count."""
    return wanted.holds(text) if "UI" in rule.vr else wanted.touches(text)


def _number(rule: Rule, vr: str, value: Any) -> Any:
    written = str(getattr(value, "original_string", value)).strip(" \0")
    try:
        number = float(written)
    except ValueError:
        return None
    low, high = rule.range or _LIMITS.get(vr, _ANY)
    if not math.isfinite(number) or not low <= number <= high:
        return None
    if vr == "DS":
        return _decimal(written, number)
    if vr in ("FD", "FL"):
        return number
    return int(number) if number == int(number) else None


def _decimal(written: str, number: float) -> str | None:
    """The decimal as it was written; too long a one is written again in the 16 characters it may have."""
    if not _DECIMAL.fullmatch(written):
        return None
    if len(written) <= _DS_CHARACTERS:
        return written
    for digits in range(15, 5, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= _DS_CHARACTERS:
            return text
    return None


def day_of(text: object) -> date | None:
    """A DICOM date, or None when it is none."""
    match = _DATE.match(str(text).strip(" \0").replace(".", ""))
    try:
        return None if match is None else date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def years(age: object, born: date | None, studied: date | None) -> int | None:
    """The patient's age in whole years, 90 for 90 and more; from the age, or from the two dates."""
    match = _AGE.fullmatch(str(age or "").strip(" \0").upper())
    if match:
        return min(OLDEST_AGE, int(int(match[1]) / _PER_YEAR[match[2]]))
    if born is None or studied is None or studied < born:
        return None
    whole = studied.year - born.year - ((studied.month, studied.day) < (born.month, born.day))
    return min(OLDEST_AGE, whole)
