"""Which groups of a family are shown, which are judged, and why not the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.statistics.cells import Cells, cells_of
from common.statistics.counts import Counts, counts_of, hidden, sides_of
from common.statistics.findings import Settings
from common.statistics.sample import Family, Sample

ENOUGH_WAYS: Final = math.log(1000)
"""Ways in which a group can lie among its strata, below which permutations say nothing."""


@dataclass(frozen=True)
class Standing:
    """One group of a family."""

    level: int
    name: str
    counts: Counts
    shown: bool
    masked: bool
    """Whether its counts are held back."""
    why: str
    """Why it is not judged; empty where it is."""
    mirrored: bool = False
    """Whether its gap is another's with the sign turned."""

    @property
    def judged(self) -> bool:
        """Whether it has a gap."""
        return not self.why


@dataclass(frozen=True)
class Prepared:
    """One family, ready to be permuted."""

    family: Family
    cells: Cells
    standings: tuple[Standing, ...]

    @property
    def judged(self) -> tuple[Standing, ...]:
        """The groups that have a gap."""
        return tuple(s for s in self.standings if s.judged)

    def tests(self, metrics: Sequence[str]) -> int:
        """Gaps, spreads and equalised odds that are judged; mirrored ones count once."""
        judged = self.judged
        each = sum(1 for s in judged if not s.mirrored) + (1 if self.spreads else 0)
        odds = 1 if len(judged) > 1 and {"sensitivity", "specificity"} <= set(metrics) else 0
        return each * len(metrics) + odds

    @property
    def spreads(self) -> bool:
        """Whether best and worst tell more than the family's one gap."""
        return len(self.judged) > 1 and len(self.cells.names) > 2


Seen = dict[tuple[tuple[str, ...], bytes], str]


def prepare(sample: Sample, families: Sequence[Family], settings: Settings) -> list[Prepared]:
    """Every family with its groups; a group of the same images as one before is not judged twice."""
    fixed = tuple(name for name in settings.fixed if name in sample.attributes)
    seen: Seen = {}
    found = []
    for family in families:
        cells = cells_of(sample, family, fixed)
        held = tuple(name for name in fixed if name not in family)
        counts = counts_of(sample, cells)
        masked = hidden(cells.names, counts, settings.least_cell)
        standings = []
        for level, name in enumerate(cells.names):
            shown = counts[level].patients >= settings.least_cell
            why = _why(sample, cells, level, (held, settings)) if shown else "too few patients to be shown"
            key = (held, cells.images[cells.level[cells.cell] == level].tobytes())
            if not why and key in seen:
                why = f"the same images as {seen[key]}"
            if not why:
                seen[key] = f"{' × '.join(family)} {name}"
            standings.append(Standing(level, name, counts[level], shown, name in masked, why))
        if len(standings) == 2 and all(s.judged for s in standings):
            first, second = standings
            standings = [first, Standing(**{**second.__dict__, "mirrored": True})]
        found.append(Prepared(family, cells, tuple(standings)))
    return found


def _why(sample: Sample, cells: Cells, level: int, how: tuple[tuple[str, ...], Settings]) -> str:
    held, settings = how
    if len(cells.names) < 2:
        return "there is no other group"
    sides, least = sides_of(sample, cells, level), settings.least_positives
    if sides.ones < least:
        return f"fewer than {least} positives"
    if sides.zeros < least:
        return f"fewer than {least} negatives"
    if min(sides.other_ones, sides.other_zeros) < least:
        return "the others are too few"
    if cells.arrangements(level) < ENOUGH_WAYS:
        return (
            f"cannot be told from its {' and '.join(held)}" if held else "too few patients to change places"
        )
    return ""
