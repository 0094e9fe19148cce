"""Laterality and orientation, where the tags tell: a header that contradicts itself does not enter."""

from __future__ import annotations

import math
from typing import Any, Final

from pydicom.dataset import Dataset

from client.quality import QualityReport

FRONTAL: Final = frozenset({"PA", "AP"})
LATERAL: Final = frozenset({"LL", "RL", "LAT", "LATERAL"})
COSINE_TOLERANCE: Final = 1e-2
"""How far direction cosines may be from unit length and a right angle; scanners round to 4 to 6 digits."""

Problem = tuple[str, str]


def check_tags(ds: Dataset) -> QualityReport:
    """Judge the header of one image; tags that are absent say nothing.

    Returns:
        ok, or `quality-orientation` (direction cosines that are none, a projection that the pixels'
        orientation contradicts) or `quality-laterality` (two sides at once, a mirrored frontal view).
    """
    for problem in (_cosines(ds), _projection(ds), _sides(ds)):
        if problem is not None:
            code, rule = problem
            return QualityReport(False, code, rule, "Correct the tags at the source, then send it again")
    return QualityReport(ok=True)


def _cosines(ds: Dataset) -> Problem | None:
    value = ds.get("ImageOrientationPatient")
    if value is None or value == "" or len(value) == 0:
        return None
    wrong = ("quality-orientation", "its image orientation is not two perpendicular directions")
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError):
        return wrong
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
        return wrong
    row, column = numbers[:3], numbers[3:]
    unit = all(abs(math.hypot(*side) - 1) <= COSINE_TOLERANCE for side in (row, column))
    right_angle = abs(sum(a * b for a, b in zip(row, column, strict=True))) <= COSINE_TOLERANCE
    return None if unit and right_angle else wrong


def _projection(ds: Dataset) -> Problem | None:
    """PatientOrientation tells where a row of pixels runs: to a side in frontal, forth or back in lateral views."""
    view = str(ds.get("ViewPosition") or "").upper()
    along_row = _first_letter(ds.get("PatientOrientation"))
    if not along_row:
        return None
    if view in FRONTAL and along_row in "AP":
        return "quality-orientation", "its view is frontal and its orientation lateral"
    if view in LATERAL and along_row in "LR":
        return "quality-orientation", "its view is lateral and its orientation frontal"
    chest = str(ds.get("BodyPartExamined") or "").upper() == "CHEST"
    if chest and view in FRONTAL and along_row == "R":  # a hand may be shown either way, a heart may not
        return "quality-laterality", "its frontal chest view is mirrored: rows run to the patient's right"
    return None


def _sides(ds: Dataset) -> Problem | None:
    sides = {str(ds.get(name) or "").upper() for name in ("Laterality", "ImageLaterality")}
    if {"L", "R"} <= sides:
        return "quality-laterality", "one tag says left and another right"
    return None


def _first_letter(value: Any) -> str:
    if value is None or isinstance(value, (int, float)) or len(value) == 0:
        return ""
    first = value if isinstance(value, str) else value[0]
    return str(first)[:1].upper()
