"""How much better a model serves one group of patients than another, with an interval.

A patient may have images in several groups (both projections, say); the shared patient enters the
interval of the gap with both. Intervals hold together for all levels at once (Bonferroni), because
the reader looks for the worst one. A gap between the best and the worst group is large by chance
alone when groups are small: the interval of `widest` allows for the choice among all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from common.messages import Estimate
from common.models.influence import (
    BoolArray,
    Figure,
    auroc_figure,
    columns,
    mean_of,
    patient_codes,
    rate_figure,
)
from common.models.intervals import auroc_interval, difference_interval, rate_interval
from common.models.metrics import decisions
from common.types import FloatArray

GapMetric = Literal["auroc", "sensitivity", "specificity"]


@dataclass(frozen=True)
class Gap:
    """`metric(level) - metric(against)`, in [-1, 1]."""

    level: str
    against: str
    """Another level, or `others`: all images of other levels."""
    difference: Estimate


@dataclass(frozen=True)
class Judged:
    """Images with their scores, truth and patient.

    Args:
        scores: [images] or [images, classes].
        labels: as `common.models.metrics` takes them.
        patients: [images] any identifiers.
        threshold: where a score counts as positive; for sensitivity and specificity.
    """

    scores: FloatArray
    labels: npt.ArrayLike
    patients: npt.ArrayLike
    threshold: float = 0.5


def gaps(metric: GapMetric, judged: Judged, groups: npt.ArrayLike, confidence: float = 0.95) -> list[Gap]:
    """Each level against all others, in the order of the levels' names.

    Args:
        metric: `auroc`, `sensitivity` (its gap is the equal-opportunity difference) or `specificity`.
        judged: the images.
        groups: [images] the level of each.
        confidence: of all intervals together.

    Levels, or others, without the images the metric needs are left out, as are groups in which one
    patient alone carries a class.
    """
    level_of = np.asarray(groups).astype(str)
    names = [str(name) for name in np.unique(level_of)]
    pairs = [(name, _figure(metric, judged, level_of == name)) for name in names]
    rests = [_figure(metric, judged, level_of != name) for name in names]
    found = [(name, a, b) for (name, a), b in zip(pairs, rests, strict=True) if a and b]
    return [Gap(name, "others", _difference(metric, a, b, confidence, len(found))) for name, a, b in found]


def widest(metric: GapMetric, judged: Judged, groups: npt.ArrayLike, confidence: float = 0.95) -> Gap | None:
    """The best level against the worst; None with fewer than two levels that can be measured.

    The interval is that of all pairs of levels together, so that having picked the widest is paid for.
    """
    level_of = np.asarray(groups).astype(str)
    figures = {str(name): _figure(metric, judged, level_of == name) for name in np.unique(level_of)}
    known = {name: figure for name, figure in figures.items() if figure}
    if len(known) < 2:
        return None
    best, worst = max(
        ((a, b) if known[a].value >= known[b].value else (b, a) for a, b in combinations(known, 2)),
        key=lambda pair: known[pair[0]].value - known[pair[1]].value,
    )
    tests = len(known) * (len(known) - 1) // 2
    return Gap(best, worst, _difference(metric, known[best], known[worst], confidence, tests))


def _figure(metric: GapMetric, judged: Judged, inside: BoolArray) -> Figure | None:
    """The metric on some images, with an influence for every patient, those outside included."""
    table, truth = columns(judged.scores, judged.labels)
    calls, codes = decisions(judged.scores, judged.labels, judged.threshold), patient_codes(judged.patients)
    found = [
        _one_class_figure(metric, (table[:, k], truth[:, k], calls[:, k]), codes, inside)
        for k in range(table.shape[1])
    ]
    known = [figure for figure in found if figure and figure.measurable]
    return mean_of(known) if known else None


def _one_class_figure(
    metric: GapMetric,
    column: tuple[FloatArray, BoolArray, BoolArray],
    codes: npt.NDArray[np.int64],
    inside: BoolArray,
) -> Figure | None:
    scores, truth, calls = column
    if metric == "auroc":
        return auroc_figure(scores, truth, codes, inside)
    if metric == "specificity":
        return rate_figure(~calls, ~truth & inside, codes)
    return rate_figure(calls, truth & inside, codes)


def _difference(metric: GapMetric, one: Figure, two: Figure, confidence: float, tests: int) -> Estimate:
    interval = auroc_interval if metric == "auroc" else rate_interval
    return difference_interval(one, two, interval, 1 - (1 - confidence) / tests)
