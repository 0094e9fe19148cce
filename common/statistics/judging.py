"""Every p-value of a call, in two stages: few permutations for all, many for those that may matter.

After the first stage only what has p at most 0.01 is permuted further, and then judged by all its permutations
together. This never makes a false alarm more likely: to end at or under some x > 0.01 a test must either have stopped there,
or have gone on, which has probability 0.01 itself; to end at or under a smaller x the many permutations must say so, and
their p-value is exact (compare Besag and Clifford 1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.statistics.chance import Table, longer, measures_of, permuted, spread
from common.statistics.counts import sides_of
from common.statistics.findings import STEPS, Settings
from common.statistics.groups import Prepared, Standing
from common.statistics.permutation import Null, one_sided, tested
from common.statistics.sample import Sample
from common.types import FloatArray

EQUALISED_ODDS: Final = "equalised_odds"
_GOES_ON: Final = 0.01
_RATES: Final = ("sensitivity", "specificity")


@dataclass(frozen=True)
class Test:
    """One judged gap or spread, before Holm."""

    prepared: Prepared
    metric: str
    standing: Standing | None
    """None: the spread of the family."""
    p: float
    null: Null | None = None
    spread: FloatArray | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The metrics it is made of."""
        return _RATES if self.metric == EQUALISED_ODDS else (self.metric,)


def judge(
    sample: Sample, prepared: Sequence[Prepared], settings: Settings, rng: np.random.Generator
) -> tuple[list[Test], list[Table], int]:
    """Every test, the permutations of every family, and how many there were for the surest.

    Args:
        sample: the images.
        prepared: the families.
        settings: metrics and limits.
        rng: of permutations and coins.
    """
    most = settings.draws(sum(one.tests(settings.metrics) for one in prepared))
    few = min(most, STEPS[0]) if settings.permutations is None else most
    tests: list[Test] = []
    tables = []
    for one in prepared:
        if not one.judged:
            tables.append(Table(measures_of(sample, one, settings)))
            continue
        table = permuted(sample, one, settings, (rng, few))
        found = _tests(sample, one, table, (tuple(table.measures), rng))
        again = sorted({m for t in found if t.p <= _GOES_ON for m in t.needs}) if most > few else []
        if again:
            table = longer(table, one, again, (rng, most - few))
            found = _replaced(found, _tests(sample, one, table, (again, rng)))
        tables.append(table)
        tests += found
    return tests, tables, most


def _replaced(found: list[Test], surer: list[Test]) -> list[Test]:
    """Tests that went on, as they ended; those that had stopped stay stopped."""
    ended = {(t.metric, t.standing): t for t in surer}
    return [ended.get((t.metric, t.standing), t) if t.p <= _GOES_ON else t for t in found]


def _tests(
    sample: Sample, one: Prepared, table: Table, how: tuple[Sequence[str], np.random.Generator]
) -> list[Test]:
    metrics, rng = how
    found = []
    for standing in one.judged:
        if standing.mirrored:
            continue
        sides = sides_of(sample, one.cells, standing.level)
        for metric in metrics:
            null = tested(table.gaps[metric, standing.level], sides.least(metric), rng)
            if null is not None:
                found.append(Test(one, metric, standing, null.p, null))
    levels = [s.level for s in one.judged]
    if one.spreads:
        for metric in metrics:
            widest = spread(table, metric, levels)
            if np.isfinite(widest[0]):
                found.append(Test(one, metric, None, one_sided(widest, rng), spread=widest))
    if len(levels) > 1 and set(_RATES) <= set(metrics):
        odds = np.maximum(*(spread(table, rate, levels) for rate in _RATES))
        found.append(Test(one, EQUALISED_ODDS, None, one_sided(odds, rng), spread=odds))
    return found
