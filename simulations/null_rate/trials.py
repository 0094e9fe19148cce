"""Batches of virtual cohorts through the statistics: what each p-value was, and whether anything was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from common.statistics import Findings, Settings, gaps
from common.statistics.catalogue import Metric
from common.statistics.sample import Family
from simulations.null_rate.cohorts import WEAK, Cohort

BINS: Final = 20
"""Of p-values, of equal width: the first is a false alarm at 5%."""
JUDGED: Final[tuple[Metric, ...]] = ("auroc", "sensitivity", "specificity", "brier")
"""The figures of the large run; the others are permuted in the same way and cost fifty times as much."""
ONE: Final = "one"
"""Under which the p-value of one gap a simulation is counted, so that all counted are independent."""
_ALARM: Final = 0.05


@dataclass(frozen=True)
class Trial:
    """One case and how it is judged."""

    cohort: Cohort
    families: tuple[Family, ...]
    metrics: tuple[Metric, ...] = JUDGED
    permutations: int | None = None


@dataclass
class Tally:
    """What came of some simulations of one case."""

    simulations: int = 0
    alarms: int = 0
    """Simulations in which anything was found after Holm."""
    named: int = 0
    """Simulations in which the weak manufacturer was found to be worse by its AUROC."""
    comparisons: dict[str, list[int]] = field(default_factory=dict)
    """By kind of gap, how many p-values fell in each bin."""

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        self.simulations += other.simulations
        self.alarms += other.alarms
        self.named += other.named
        for kind, counts in other.comparisons.items():
            mine = self.comparisons.setdefault(kind, [0] * BINS)
            self.comparisons[kind] = [a + b for a, b in zip(mine, counts, strict=True)]

    def rate(self, kinds: Sequence[str] | None = None) -> tuple[int, int]:
        """p-values at or under 5%, and all of them, of some kinds; of all but `one` where not given."""
        wanted = [k for k in self.comparisons if k != ONE] if kinds is None else kinds
        tables = [self.comparisons[k] for k in wanted if k in self.comparisons]
        return sum(t[0] for t in tables), sum(sum(t) for t in tables)


def carry_out(trial: Trial, seed: tuple[int, ...], simulations: int) -> Tally:
    """Draw cohorts and judge them.

    Args:
        trial: the case.
        seed: of the batch; each simulation has a seed of its own in it.
        simulations: how many.
    """
    tally = Tally()
    settings = Settings(metrics=trial.metrics, permutations=trial.permutations, resamples=0)
    for number in range(simulations):
        rng = np.random.default_rng([*seed, number])
        found = gaps(trial.cohort.draw(rng), trial.families, rng, settings)
        tally.add(_counted(found))
    return tally


def _counted(found: Findings) -> Tally:
    own = [g for g in found.gaps if not g.mirrored]
    tally = Tally(simulations=1)
    for kind, p in [
        *((g.metric, g.p) for g in own),
        *((f"best-worst {s.metric}", s.p) for s in found.spreads),
    ]:
        tally.comparisons.setdefault(kind, [0] * BINS)[_bin(p)] += 1
    one = next((g for g in own if g.family == ("manufacturer",) and g.metric == "auroc"), None)
    if one is not None:
        tally.comparisons[ONE] = [int(b == _bin(one.p)) for b in range(BINS)]
    adjusted = [g.holm for g in own] + [s.holm for s in found.spreads]
    tally.alarms = int(min(adjusted, default=1.0) <= _ALARM)
    tally.named = int(any(g.level == WEAK and g.metric == "auroc" and g.worse for g in found.found()))
    return tally


def _bin(p: float) -> int:
    # p is a whole number of thousandths or finer; 0.05 itself belongs to the first bin.
    return min(BINS - 1, max(0, int(np.ceil(p * BINS - 1e-9)) - 1))
