"""The one entry: images with scores and groups in, every gap beside what chance alone gives out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from common.messages import Estimate
from common.statistics.catalogue import BETTER
from common.statistics.chance import Table, spread
from common.statistics.findings import Findings, Gap, Group, Settings, Spread
from common.statistics.groups import Prepared, Standing, prepare
from common.statistics.intervals import Intervals
from common.statistics.judging import EQUALISED_ODDS, Test, judge
from common.statistics.permutation import holm
from common.statistics.sample import Family, Sample, families_of

_DEFAULT: Final = Settings()


def gaps(
    sample: Sample,
    families: Sequence[Family] | None,
    rng: np.random.Generator,
    settings: Settings = _DEFAULT,
) -> Findings:
    """Judge every group of every family against everybody else, all together.

    Args:
        sample: test images under one model.
        families: attributes, or pairs of them; every attribute and every pair where not given.
        rng: of permutations, coins and bootstrap: the same gives the same findings.
        settings: metrics, levels and limits.
    """
    wanted = families if families is not None else families_of(tuple(sample.attributes))
    prepared = prepare(sample, wanted, settings)
    tests, tables, draws = judge(sample, prepared, settings, rng)
    adjusted = holm(np.array([test.p for test in tests]))
    found: list[Gap] = []
    spreads: list[Spread] = []
    groups: list[Group] = []
    for one, table in zip(prepared, tables, strict=True):
        intervals = Intervals(sample, one.cells, table.measures, (settings, rng))
        own = [(t, float(h)) for t, h in zip(tests, adjusted, strict=True) if t.prepared is one]
        for test, after in own:
            if test.standing is None:
                spreads.append(_spread(test, table, after, settings))
            else:
                found += _gaps(test, table, (after, len(tests)), intervals)
        groups += [_group(one, standing, intervals) for standing in one.standings]
    return Findings(
        tuple(groups), tuple(found), tuple(spreads), len(tests), draws, sample.threshold, settings
    )


def _gaps(test: Test, table: Table, after: tuple[float, int], intervals: Intervals) -> list[Gap]:
    """The gap of a test, and of the other group where there are two."""
    if test.standing is None or test.null is None:
        return []
    listed = [test.standing, *(s for s in test.prepared.judged if s.mirrored)]
    adjusted, tests = after
    # Holm multiplies the p-value of this gap by adjusted / p; its band is that of the level divided by as much.
    steps = min(max(adjusted / test.p, 1.0), tests) if adjusted < 1 else tests
    alpha = 1 - intervals.confidence
    alone, together = test.null.band(alpha), test.null.band(alpha / steps)
    found = []
    for standing in listed:
        value = float(table.inside[test.metric, standing.level][0])
        gap = intervals.gap(test.metric, standing.level)
        better = BETTER[test.metric]
        bands = [band.turned() if standing.mirrored else band for band in (alone, together)]
        # Seen from where chance puts it: who stands at a weak site and does better than that explains is not served worse.
        worse = better(value) < better(value - (gap.value - bands[0].centre))
        found.append(
            Gap(
                test.prepared.family, standing.name, test.metric, value, gap, bands[0], bands[1],
                test.p, adjusted, worse, standing.mirrored,
            )
        )  # fmt: skip
    return found


def _spread(test: Test, table: Table, adjusted: float, settings: Settings) -> Spread:
    judged = test.prepared.judged
    metric = test.metric if test.metric != EQUALISED_ODDS else "sensitivity"
    if test.metric == EQUALISED_ODDS and test.spread is not None:
        specific = spread(table, "specificity", [s.level for s in judged])[0]
        metric = "specificity" if specific >= test.spread[0] else "sensitivity"
    better = BETTER[metric]
    ordered = sorted(judged, key=lambda s: better(float(table.inside[metric, s.level][0])))
    values = test.spread if test.spread is not None else np.zeros(1)
    under = float(np.quantile(values[np.isfinite(values)], 1 - settings.alpha))
    return Spread(
        test.prepared.family,
        test.metric,
        ordered[0].name,
        ordered[-1].name,
        float(values[0]),
        under,
        test.p,
        adjusted,
    )


def _group(one: Prepared, standing: Standing, intervals: Intervals) -> Group:
    counts, masked = standing.counts, standing.masked
    figures: dict[str, Estimate] = intervals.figures(standing.level) if standing.shown else {}
    return Group(
        one.family,
        standing.name,
        None if masked else counts.patients,
        None if masked else counts.positives,
        None if masked else counts.negatives,
        figures,
        ranked=standing.judged,
        why=standing.why,
    )
