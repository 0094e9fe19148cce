"""How many patients a group has, and which of these numbers are held back.

A count under the minimum is held back, and with it what would give it away: with a group's positives its negatives;
and in every family, where the total is known, so many other groups that what is missing is not one count and not
under the minimum. In a family of pairs this holds along every row and every column, whose totals the two
single families give. This is for pages that a researcher shows around; what leaves a hospital is decided by its own door.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from common.statistics.cells import Cells
from common.statistics.sample import BETWEEN, Sample


@dataclass(frozen=True)
class Counts:
    """Patients of one group; one with images of both kinds is positive."""

    patients: int
    positives: int
    negatives: int


def counts_of(sample: Sample, cells: Cells) -> list[Counts]:
    """Patients of every level of a family."""
    positive = cells.has(sample.truth[cells.images])
    found = []
    for level in range(len(cells.names)):
        inside = cells.level == level
        ones = int((positive & inside).sum())
        found.append(Counts(int(inside.sum()), ones, int(inside.sum()) - ones))
    return found


@dataclass(frozen=True)
class Sides:
    """Patients with a positive image, and with a negative one, inside a group and outside; some are in several."""

    ones: int
    other_ones: int
    zeros: int
    other_zeros: int

    def least(self, metric: str) -> int:
        """Those that the smaller side of a gap rests on."""
        ones, zeros = min(self.ones, self.other_ones), min(self.zeros, self.other_zeros)
        return {"sensitivity": ones, "specificity": zeros}.get(metric, min(ones, zeros))


def sides_of(sample: Sample, cells: Cells, level: int) -> Sides:
    """Patients on both sides of a gap."""
    truth = sample.truth[cells.images]
    inside = cells.level == level
    found = []
    for which in (cells.has(truth), cells.has(~truth)):
        found += [len(np.unique(cells.patient[which & part])) for part in (inside, ~inside)]
    return Sides(*found)


def hidden(names: tuple[str, ...], counts: list[Counts], least: int) -> frozenset[str]:
    """The groups of one family whose counts are held back.

    Args:
        names: of the groups.
        counts: of each.
        least: the smallest count that is shown; zero patients of a kind are shown.
    """
    size = dict(zip(names, counts, strict=True))
    found = {
        name for name, c in size.items() if any(0 < n < least for n in (c.patients, c.positives, c.negatives))
    }
    lines = list(_lines(names))
    while True:
        added = {extra for line in lines if (extra := _cover(line, found, size, least)) is not None}
        if not added:
            return frozenset(found)
        found |= added


def _lines(names: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """The groups whose sum is known: all of a family, or of each row and column of a family of pairs."""
    parts = [name.split(BETWEEN) for name in names]
    if not parts or any(len(part) < 2 for part in parts):
        yield names
        return
    for place in range(len(parts[0])):
        rest = [BETWEEN.join(p[:place] + p[place + 1 :]) for p in parts]
        for one in (rest, [p[place] for p in parts]):
            for value in sorted(set(one)):
                yield tuple(n for n, o in zip(names, one, strict=True) if o == value)


def _cover(line: tuple[str, ...], found: set[str], size: dict[str, Counts], least: int) -> str | None:
    """The smallest shown group of a line that must be held back too, if any."""
    away = [size[name] for name in line if name in found]
    shown = [name for name in line if name not in found]
    if not away or not shown:
        return None
    enough = all(
        total == 0 or total >= least
        for total in (
            sum(c.patients for c in away),
            sum(c.positives for c in away),
            sum(c.negatives for c in away),
        )
    )
    if len(away) > 1 and enough:
        return None
    return min(shown, key=lambda name: (size[name].patients, name))
