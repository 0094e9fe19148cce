"""Which patients train, which validate, which test: keyed, stratified, by whole patients.

A patient is never in two parts. Where the label table names a part, that is kept; the others are drawn
by a hash of the plan's split seed and the pseudonym, in equal shares from every kind of patient.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Final, Literal, cast

from common.errors import DataError
from common.plan import Data

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")

STEPS: Final = (1, 1.5, 2, 3, 5, 7)
"""Public counts of patients are these times a power of ten: at most two fifths below the truth."""


def public_bucket(n: int) -> int:
    """The largest public count that is not above `n`; 0 for no patients.

    It stands in for the exact number wherever that number could leave (law 0).
    """
    if n < 1:
        return 0
    power = 10 ** (len(str(n)) - 1)
    return max(int(step * power) for step in STEPS if step * power <= n)


def explicit_part(splits: set[str]) -> Part | None:
    """The part a patient's images name, or None where they name none.

    Raises:
        DataError: `data-split-conflict` when they name two.
    """
    named = splits - {""}
    if len(named) > 1:
        raise DataError(
            "the label table",
            f"one patient is in {' and '.join(sorted(named))}",
            "Give all images of a patient the same split, or none",
            code="data-split-conflict",
        )
    return cast(Part, named.pop()) if named else None


def draw_parts(kinds: Mapping[str, Hashable], data: Data) -> dict[str, Part]:
    """Draw a part for each patient.

    Args:
        kinds: patient (pseudonym) to the kind it is stratified by.
        data: fractions and seed of the plan.

    Returns:
        patient to part. Over all patients, and up to the strata before it in each stratum, the
        numbers in test and in validation are within one patient of their fractions.
    """
    strata: dict[str, list[str]] = defaultdict(list)
    for patient, kind in kinds.items():
        strata[repr(kind)].append(patient)
    parts: dict[str, Part] = {}
    seen = tested = validated = 0
    # small strata first: what rounding leaves over is made good in the largest
    for _, members in sorted(strata.items(), key=lambda item: (len(item[1]), item[0])):
        ordered = sorted(members, key=lambda patient: _rank(data.split_seed, patient))
        seen += len(ordered)
        to_test = _between(round(seen * data.test_fraction) - tested, len(ordered))
        to_validate = _between(round(seen * data.validation_fraction) - validated, len(ordered) - to_test)
        tested, validated = tested + to_test, validated + to_validate
        for place, patient in enumerate(ordered):
            parts[patient] = _part(place, to_test, to_validate)
    return parts


def _part(place: int, to_test: int, to_validate: int) -> Part:
    if place < to_test:
        return "test"
    return "validation" if place < to_test + to_validate else "train"


def _between(wanted: int, most: int) -> int:
    return max(0, min(wanted, most))


def _rank(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"consilium split {seed} {patient}".encode()).digest()
