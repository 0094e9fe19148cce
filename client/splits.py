"""Which patients train, which validate, which test: keyed, stratified, by whole patients, for good.

A patient is never in two parts. Where the label table names a part, that is kept; the others are drawn
by a hash of the plan's split seed and the pseudonym, in equal shares from every kind of patient. A part
once drawn stays: who comes later is drawn around those who were there, because a test patient who
moved to training would flatter every later test.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
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


def split_key(data: Data) -> str:
    """The name under which the index keeps the parts of a split: a digest of its seed and fractions."""
    drawn_by = json.dumps([data.split_seed, data.test_fraction, data.validation_fraction])
    return hashlib.sha256(f"consilium parts {drawn_by}".encode()).hexdigest()[:32]


def draw_parts(
    kinds: Mapping[str, Hashable], data: Data, kept: Mapping[str, Part] | None = None
) -> dict[str, Part]:
    """Draw a part for each patient who has none yet.

    Args:
        kinds: patient (pseudonym) to the kind it is stratified by.
        data: fractions and seed of the plan.
        kept: parts that were given before; they stay. Others than those in `kinds` do not count.

    Returns:
        patient to part. Over all patients, and up to the strata before it in each stratum, the
        numbers in test and in validation are within one patient of their fractions, or as near as
        the patients who have a part already allow.
    """
    had = {patient: part for patient, part in (kept or {}).items() if patient in kinds}
    members: dict[str, list[str]] = defaultdict(list)
    for patient, kind in kinds.items():
        members[repr(kind)].append(patient)
    # small strata first: what rounding leaves over is made good in the largest
    strata = [names for _, names in sorted(members.items(), key=lambda item: (len(item[1]), item[0]))]
    free = [
        sorted(set(names) - had.keys(), key=lambda name: _rank(data.split_seed, name)) for names in strata
    ]
    quotas = _quotas([len(names) for names in strata], data)
    room = [len(names) for names in free]
    to_test = _shares([test for test, _ in quotas], _count(strata, had, "test"), room)
    room = [have - taken for have, taken in zip(room, to_test, strict=True)]
    to_validate = _shares([wanted for _, wanted in quotas], _count(strata, had, "validation"), room)
    drawn = {
        patient: _part(place, test, validate)
        for names, test, validate in zip(free, to_test, to_validate, strict=True)
        for place, patient in enumerate(names)
    }
    return had | drawn


def _quotas(sizes: Sequence[int], data: Data) -> list[tuple[int, int]]:
    """How many of each stratum would be in test and in validation if nobody had a part yet."""
    quotas: list[tuple[int, int]] = []
    seen = tested = validated = 0
    for size in sizes:
        seen += size
        to_test = _between(round(seen * data.test_fraction) - tested, size)
        to_validate = _between(round(seen * data.validation_fraction) - validated, size - to_test)
        tested, validated = tested + to_test, validated + to_validate
        quotas.append((to_test, to_validate))
    return quotas


def _shares(quotas: Sequence[int], have: Sequence[int], room: Sequence[int]) -> list[int]:
    """How many to add in each stratum: up to its quota, and in all no more than the sum of the quotas lacks.

    What a stratum has no room for is taken from the others, the largest first.
    """
    lacking = max(0, sum(quotas) - sum(have))
    shares: list[int] = []
    for quota, there, free in zip(quotas, have, room, strict=True):
        shares.append(_between(quota - there, min(free, lacking - sum(shares))))
    for stratum in reversed(range(len(shares))):
        shares[stratum] += _between(lacking - sum(shares), room[stratum] - shares[stratum])
    return shares


def _count(strata: Sequence[Sequence[str]], parts: Mapping[str, Part], part: Part) -> list[int]:
    return [sum(parts.get(name) == part for name in names) for names in strata]


def _part(place: int, to_test: int, to_validate: int) -> Part:
    if place < to_test:
        return "test"
    return "validation" if place < to_test + to_validate else "train"


def _between(wanted: int, most: int) -> int:
    return max(0, min(wanted, most))


def _rank(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"consilium split {seed} {patient}".encode()).digest()
