"""Figures of merit with confidence intervals that know which images are of one patient.

`scores` are [images] or [images, classes]; `labels` are 0 or 1 of the same shape, or class numbers
[images] for a multiclass task; `patients` [images] may be any identifiers. Multiclass is read one
class against the rest, multilabel output by output, and both are averaged without weights over the
classes for which the figure exists. At a threshold, an image is called positive for a score at or
above it; a multiclass image is called for its highest score, and the threshold is not used.

| figure | interval |
|---|---|
| AUROC | clustered DeLong on the logit scale; at complete separation, exact |
| sensitivity, specificity | Wilson, with the effective number of images after clustering |
| AUPRC, precision, F1 | patient bootstrap, percentiles; without one error, see `bootstrap.flawless` |
| difference of AUROC | clustered DeLong, paired; others: patient bootstrap, paired |

Every function raises `DataError` with code `one-class` where the figure does not exist.
No torch here: the courier and the report import this module.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from common.messages import Estimate
from common.models import bootstrap as boot
from common.models.bootstrap import Bootstrap, Weighted
from common.models.calibration import calibration, ece, youden_threshold
from common.models.influence import (
    BoolArray,
    Figure,
    auroc_figure,
    columns,
    mean_of,
    one_class,
    patient_codes,
    rate_figure,
)
from common.models.intervals import auroc_interval, difference_interval, rate_interval
from common.types import FloatArray

__all__ = [
    "Bootstrap",
    "Metric",
    "auprc",
    "auroc",
    "auroc_difference",
    "auroc_of",
    "calibration",
    "decisions",
    "difference",
    "ece",
    "f1",
    "precision",
    "rate_of",
    "sensitivity",
    "specificity",
    "youden_threshold",
]

Metric = Literal["auroc", "auprc", "sensitivity", "specificity", "precision", "f1"]

_DEFAULT = Bootstrap()


def auroc(
    scores: FloatArray, labels: npt.ArrayLike, patients: npt.ArrayLike, confidence: float = 0.95
) -> Estimate:
    """Area under the ROC curve, macro over classes.

    Complete separation (1, or 0) has an interval too: see `intervals.auroc_interval`.
    """
    return auroc_interval(auroc_of(scores, labels, patients), confidence)


def auroc_of(scores: FloatArray, labels: npt.ArrayLike, patients: npt.ArrayLike) -> Figure:
    """AUROC with each patient's influence on it; what `auroc` and `fairness` build on."""
    table, truth = columns(scores, labels)
    codes = patient_codes(patients)
    figures = (auroc_figure(table[:, k], truth[:, k], codes) for k in range(table.shape[1]))
    return _mean([f for f in figures if f is not None], "positive and negative images")


def auroc_difference(
    scores: FloatArray,
    other: FloatArray,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    confidence: float = 0.95,
) -> Estimate:
    """AUROC of `scores` minus AUROC of `other` on the same images, paired and clustered.

    Where one of the two separates completely, the paired variance is too small to be believed; the
    interval then comes from the two intervals of the areas (MOVER, Newcombe 2012, without
    correlation). Scores that rank alike differ by exactly 0.
    """
    one, two = auroc_of(scores, labels, patients), auroc_of(other, labels, patients)
    if np.array_equal(one.influence, two.influence) and one.value == two.value and one.measurable:
        return Estimate(0.0, 0.0, 0.0)
    return difference_interval(one, two, auroc_interval, confidence)


def sensitivity(
    scores: FloatArray,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    threshold: float,
    confidence: float = 0.95,
) -> Estimate:
    """Share of positive images called positive."""
    return rate_interval(rate_of("sensitivity", scores, labels, patients, threshold), confidence)


def specificity(
    scores: FloatArray,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    threshold: float,
    confidence: float = 0.95,
) -> Estimate:
    """Share of negative images called negative."""
    return rate_interval(rate_of("specificity", scores, labels, patients, threshold), confidence)


def rate_of(
    metric: Literal["sensitivity", "specificity"],
    scores: FloatArray,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    threshold: float,
) -> Figure:
    """Sensitivity or specificity with each patient's influence on it."""
    _, truth = columns(scores, labels)
    calls, codes = decisions(scores, labels, threshold), patient_codes(patients)
    if metric == "specificity":
        calls, truth = ~calls, ~truth
    figures = (rate_figure(calls[:, k], truth[:, k], codes) for k in range(truth.shape[1]))
    kind = "positive" if metric == "sensitivity" else "negative"
    return _mean([f for f in figures if f is not None], f"{kind} images")


def auprc(
    scores: FloatArray, labels: npt.ArrayLike, patients: npt.ArrayLike, bootstrap: Bootstrap = _DEFAULT
) -> Estimate:
    """Area under the precision-recall curve as average precision."""
    return _bootstrapped("auprc", (scores, labels, patients), 0.0, bootstrap)


def precision(
    scores: FloatArray,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    threshold: float,
    bootstrap: Bootstrap = _DEFAULT,
) -> Estimate:
    """Share of images called positive that are."""
    return _bootstrapped("precision", (scores, labels, patients), threshold, bootstrap)


def f1(
    scores: FloatArray,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    threshold: float,
    bootstrap: Bootstrap = _DEFAULT,
) -> Estimate:
    """Harmonic mean of precision and sensitivity."""
    return _bootstrapped("f1", (scores, labels, patients), threshold, bootstrap)


def difference(
    metric: Metric,
    pair: tuple[FloatArray, FloatArray],
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    threshold: float,
    bootstrap: Bootstrap = _DEFAULT,
) -> Estimate:
    """`metric(pair[0]) - metric(pair[1])` on the same images, paired by resampling the same patients.

    AUROC goes to `auroc_difference`.
    """
    if metric == "auroc":
        return auroc_difference(*pair, labels, patients, bootstrap.confidence)
    codes = patient_codes(patients)
    one, two = (_weighted(metric, scores, labels, threshold) for scores in pair)
    ones = np.ones((1, len(codes)))
    change = _defined(float(one(ones)[0] - two(ones)[0]), metric)
    spread = boot.resampled(one, codes, bootstrap) - boot.resampled(two, codes, bootstrap)
    return boot.percentile_interval(change, spread, bootstrap.confidence)


def decisions(scores: FloatArray, labels: npt.ArrayLike, threshold: float) -> BoolArray:
    """Which images are called positive for which class: [images, classes]."""
    table, _ = columns(scores, labels)
    if table.shape[1] > 1 and np.asarray(labels).ndim == 1:
        exclusive: BoolArray = table.argmax(axis=1)[:, None] == np.arange(table.shape[1])
        return exclusive
    called: BoolArray = table >= threshold
    return called


def _weighted(metric: Metric, scores: FloatArray, labels: npt.ArrayLike, threshold: float) -> Weighted:
    table, truth = columns(scores, labels)
    calls = decisions(scores, labels, threshold)
    figures = [_one_weighted(metric, table[:, k], calls[:, k], truth[:, k]) for k in range(table.shape[1])]
    return figures[0] if len(figures) == 1 else boot.mean_over(figures)


def _one_weighted(metric: Metric, scores: FloatArray, calls: BoolArray, truth: BoolArray) -> Weighted:
    if metric == "auprc":
        return boot.average_precision(scores, truth)
    if metric == "f1":
        return boot.f1_score(calls, truth)
    if metric == "specificity":
        return boot.share(~calls, ~truth)
    return boot.share(truth, calls) if metric == "precision" else boot.share(calls, truth)


def _bootstrapped(
    metric: Metric,
    sample: tuple[FloatArray, npt.ArrayLike, npt.ArrayLike],
    threshold: float,
    bootstrap: Bootstrap,
) -> Estimate:
    scores, labels, patients = sample
    codes = patient_codes(patients)
    figure = _weighted(metric, scores, labels, threshold)
    value = _defined(float(figure(np.ones((1, len(codes))))[0]), metric)
    if value >= 1:
        _, truth = columns(scores, labels)
        counted = decisions(scores, labels, threshold) if metric == "precision" else truth
        return boot.flawless(len(np.unique(codes[counted.any(axis=1)])), bootstrap.confidence)
    return boot.percentile_interval(value, boot.resampled(figure, codes, bootstrap), bootstrap.confidence)


def _mean(figures: list[Figure], needed: str) -> Figure:
    if not figures:
        raise one_class(needed)
    return mean_of(figures)


def _defined(value: float, metric: str) -> float:
    if not math.isfinite(value):
        raise one_class("precision" if metric == "precision" else "positive images")
    return value
