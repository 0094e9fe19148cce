"""Who comes to a virtual hospital, who is ill, on which machine they are imaged, and what its labels say of them.

Everything about a patient that a scenario controls is drawn here, before anything is rendered, and recorded: sex,
age, day, machine, posture, truth, and what the label table says instead of the truth. Illness is drawn last, given the
rest. Several shares for one patient are joined as odds: `logit p = logit p0 + sum over attributes (logit p_a - logit p0)`,
so that a share given for one attribute alone is met as given, and two add up as in a logistic model without interaction.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass as plain
from dataclasses import field
from datetime import date, timedelta
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from client.dataset import age_band
from common.errors import DataError
from simulations.hospitals.machines import MODELS, aged
from simulations.hospitals.people import DAYS, FIRST_DAY
from simulations.phantoms import Projection
from simulations.scanners.history import History

Attribute = Literal["scanner", "projection", "age", "sex"]
Split = Literal["", "train", "validation", "test"]
Mix = Mapping[str, float]
"""Weights by name; they need not sum to one."""

_STRICT: Final = ConfigDict(extra="forbid")
_NEVER: Final = 1e-4
"""A share of 0 or 1 would be infinite odds; this is one patient in ten thousand."""


@dataclass(frozen=True, config=_STRICT)
class Ages:
    """Years: a normal distribution, cut off at both ends."""

    mean: float = 60.0
    sd: float = 17.0
    youngest: int = 18
    oldest: int = 97

    def draw(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Completed years of `count` patients."""
        drawn = np.clip(rng.normal(self.mean, self.sd, count), self.youngest, self.oldest)
        return drawn.astype(np.int64)


@dataclass(frozen=True, config=_STRICT)
class Reader:
    """Who gave a label, and how often they are wrong."""

    name: str
    weight: float = 1.0
    overcalls: float = 0.0
    """Share of healthy patients called ill."""
    misses: float = 0.0
    """Share of ill patients called healthy."""


@dataclass(frozen=True, config=_STRICT)
class Labelling:
    """What the label table says of patients."""

    readers: tuple[Reader, ...] = (Reader("radiologist"),)
    missing: float = 0.0
    """Share of patients whom it does not name."""
    swapped: bool = False
    """Ill and healthy the wrong way round for everybody: a column misread once, at one site."""


@dataclass(frozen=True, config=_STRICT)
class Change:
    """From this day on other machines are used."""

    day: date
    scanners: Mix


@plain(frozen=True)
class Population:
    """One hospital's patients, machines and labels."""

    prevalence: float
    """Share of patients with the finding, before what the attributes below say."""
    scanners: Mix
    ap: Mix
    """By scanner, the share of patients imaged AP; 0.3 where it is not named."""
    female: float = 0.48
    ages: Ages = field(default_factory=Ages)
    prevalence_by: Mapping[Attribute, Mix] = field(default_factory=dict)
    """By attribute and its value (a scanner's name; PA, AP; a band of ages such as 0-17; F, M), the share of the ill."""
    labelling: Labelling = field(default_factory=Labelling)
    changes: tuple[Change, ...] = ()
    """In the order of their days."""
    tested_after: date | None = None
    """Whoever is first imaged from this day on is tested and never trained on; None: splits are the client's."""
    validation: float = 0.2
    """Of those before that day, the share that validates."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """By machine, its drift and services; months since the first day of all archives."""

    def machines(self) -> frozenset[str]:
        """Every scanner that is used at some time."""
        return frozenset(self.scanners) | {name for change in self.changes for name in change.scanners}

    def mix(self, day: date) -> Mix:
        """The machines in use on a day."""
        past = [change.scanners for change in self.changes if change.day <= day]
        return past[-1] if past else self.scanners


@plain(frozen=True)
class Traits:
    """What was drawn of one patient."""

    positive: bool
    sex: Literal["F", "M"]
    age: int
    day: date
    """Of the first study."""
    scanner: str
    projection: Projection
    told: int | None
    """What the label table says; None: nothing."""
    reader: str
    split: Split


def check(name: str, population: Population) -> None:
    """See that a population can be drawn.

    Raises:
        DataError: naming the hospital and the mistake.
    """
    shares = [
        population.prevalence,
        population.female,
        population.labelling.missing,
        *(share for mix in population.prevalence_by.values() for share in mix.values()),
        *(one for reader in population.labelling.readers for one in (reader.overcalls, reader.misses)),
    ]
    days = [change.day for change in population.changes]
    mixes = [population.scanners, *(change.scanners for change in population.changes)]
    unknown = (population.machines() | set(population.histories)) - set(MODELS)
    for wrong, rule, remedy in (
        (unknown, f"unknown scanner {min(unknown, default='')}", f"Use one of {', '.join(MODELS)}"),
        (any(not 0 <= share <= 1 for share in shares), "a share is below 0 or above 1", "Give shares"),
        (not 0 < population.prevalence < 1, "nobody or everybody is ill", "Give a prevalence between"),
        (any(sum(mix.values()) <= 0 for mix in mixes), "no scanner has a weight", "Give one"),
        (days != sorted(days), "changes of machines are not in the order of their days", "Sort them"),
        (not population.labelling.readers, "nobody reads its images", "Name a reader"),
    ):
        if wrong:
            raise DataError(name, rule, remedy)
    for machine, history in population.histories.items():
        if machine not in population.machines():
            raise DataError(name, f"it has no {machine} that could drift", "Name it in scanners too")
        try:
            aged(MODELS[machine], history, FIRST_DAY + timedelta(days=DAYS))
        except DataError as error:
            raise DataError(name, f"{error.subject} of {machine} {error.rule}", error.remedy) from None


def draw(population: Population, count: int, rng: np.random.Generator) -> list[Traits]:
    """Draw the patients of one hospital.

    Every group of patients with the same chances holds its share of ill patients, to one patient.

    Args:
        population: checked by `check`.
        count: patients.
        rng: the same generator draws the same patients.
    """
    sexes: list[Literal["F", "M"]] = ["F" if one < population.female else "M" for one in rng.random(count)]
    ages = population.ages.draw(rng, count)
    days = [FIRST_DAY + timedelta(days=int(day)) for day in rng.integers(DAYS, size=count)]
    machines = _machines(population, days, rng)
    bedside = rng.random(count)
    views: list[Projection] = [
        "AP" if share < population.ap.get(name, 0.3) else "PA"
        for share, name in zip(bedside, machines, strict=True)
    ]
    groups = [
        {"scanner": machine, "projection": view, "age": age_band(int(age)), "sex": sex}
        for machine, view, age, sex in zip(machines, views, ages, sexes, strict=True)
    ]
    ill = _ill(np.array([chance(population, group) for group in groups]), rng)
    told, readers = _told(population.labelling, ill, rng)
    splits = _splits(population, days, rng)
    return [
        Traits(
            bool(ill[i]),
            sexes[i],
            int(ages[i]),
            days[i],
            machines[i],
            views[i],
            told[i],
            readers[i],
            splits[i],
        )
        for i in range(count)
    ]


def chance(population: Population, group: Mapping[str, str]) -> float:
    """The probability that a patient with these attributes is ill.

    Args:
        population: whose.
        group: attribute to value.
    """
    base = _logit(population.prevalence)
    shift = sum(
        _logit(mix[group[attribute]]) - base
        for attribute, mix in population.prevalence_by.items()
        if group.get(attribute) in mix
    )
    return 1 / (1 + math.exp(-(base + shift)))


def _logit(share: float) -> float:
    inside = min(max(share, _NEVER), 1 - _NEVER)
    return math.log(inside / (1 - inside))


def _machines(population: Population, days: list[date], rng: np.random.Generator) -> list[str]:
    """Machines of the mix in use on each day, each mix dealt out to its share."""
    found = [""] * len(days)
    periods: dict[int, list[int]] = defaultdict(list)
    for number, day in enumerate(days):
        periods[sum(change.day <= day for change in population.changes)].append(number)
    for members in (periods[period] for period in sorted(periods)):
        mix = population.mix(days[members[0]])
        for number, name in zip(rng.permutation(members), _dealt(mix, len(members), rng), strict=True):
            found[int(number)] = name
    return found


def _dealt(mix: Mix, count: int, rng: np.random.Generator) -> list[str]:
    """Names in their shares of `count`, each to one; systematic sampling with one random start."""
    names = sorted(mix)
    ends = np.cumsum([mix[name] for name in names]) / sum(mix.values())
    places = (np.arange(count) + rng.random()) / count
    return [names[int(place)] for place in np.searchsorted(ends[:-1], places, side="right")]


def _ill(chances: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Systematic sampling along the chances: patients of one chance stand together, in random order."""
    order = np.lexsort((rng.random(len(chances)), chances))
    ends = np.cumsum(chances[order]) + rng.random()
    ill = np.zeros(len(chances), dtype=np.bool_)
    ill[order] = np.floor(ends) > np.floor(np.concatenate([[ends[0] - chances[order[0]]], ends[:-1]]))
    return ill


def _told(
    labelling: Labelling, ill: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[list[int | None], list[str]]:
    weights = {str(number): reader.weight for number, reader in enumerate(labelling.readers)}
    dealt = rng.permutation([int(number) for number in _dealt(weights, len(ill), rng)])
    wrong, lost = rng.random(len(ill)), rng.random(len(ill))
    told: list[int | None] = []
    for truth, number, error, gone in zip(ill, dealt, wrong, lost, strict=True):
        reader = labelling.readers[int(number)]
        flipped = error < (reader.misses if truth else reader.overcalls)
        said = int(bool(truth) ^ bool(flipped) ^ labelling.swapped)
        told.append(None if gone < labelling.missing else said)
    return told, [labelling.readers[int(number)].name for number in dealt]


def _splits(population: Population, days: list[date], rng: np.random.Generator) -> list[Split]:
    if population.tested_after is None:
        return [""] * len(days)
    chosen = rng.random(len(days))
    return [
        "test" if day >= population.tested_after else "validation" if one < population.validation else "train"
        for day, one in zip(days, chosen, strict=True)
    ]
