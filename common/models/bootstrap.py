"""Patient-cluster bootstrap: whole patients are drawn, and a resample is a weight for each image.

Efron and Tibshirani 1993, chapters 8 and 13. Every figure is written for weights, so that all
resamples of it are computed at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from common.messages import Estimate
from common.models.influence import BoolArray, IntArray
from common.types import FloatArray

_CELLS = 2_000_000
"""Weights held at once: 16 MB."""

Weighted = Callable[[FloatArray], FloatArray]
"""Weights [resamples, images] to figures [resamples]; not a number where the figure is undefined."""


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples, from which seed, and how sure the interval must be."""

    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0


def resampled(figure: Weighted, codes: IntArray, bootstrap: Bootstrap) -> FloatArray:
    """The figure on every resample [resamples].

    Args:
        figure: as `Weighted`.
        codes: patient number of each image [images].
        bootstrap: resamples and seed; the same seed draws the same patients for every figure.
    """
    return np.concatenate([figure(weights) for weights in _weights(codes, bootstrap)])


def _weights(codes: IntArray, bootstrap: Bootstrap) -> Iterator[FloatArray]:
    """Weights [some resamples, images], a few at a time."""
    rng = np.random.default_rng(bootstrap.seed)
    patients = int(codes.max()) + 1
    block = max(1, _CELLS // max(len(codes), patients))
    for start in range(0, bootstrap.resamples, block):
        size = min(block, bootstrap.resamples - start)
        counts = rng.multinomial(patients, np.full(patients, 1 / patients), size=size)
        yield counts[:, codes].astype(np.float64)


def percentile_interval(value: float, figures: FloatArray, confidence: float) -> Estimate:
    """The middle `confidence` of the figures that are defined, stretched to hold the value itself."""
    defined = figures[np.isfinite(figures)]
    if not len(defined):
        return Estimate(value, 0.0, 1.0)
    tail = 50 * (1 - confidence)
    low, high = (float(x) for x in np.percentile(defined, [tail, 100 - tail]))
    return Estimate(value, min(low, value), max(high, value))


def flawless(patients: int, confidence: float) -> Estimate:
    """The interval of a figure that came out as 1 without one error, where resampling shows no spread.

    Its low end is the rate of flawless patients that would still give `patients` of them in a row
    with probability (1 - confidence) / 2 (Clopper and Pearson 1934).
    """
    return Estimate(1.0, math.exp(math.log((1 - confidence) / 2) / max(1, patients)), 1.0)


def average_precision(scores: FloatArray, truth: BoolArray) -> Weighted:
    """Area under the precision-recall curve as the step sum over distinct scores, [images] each."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = truth[order]

    def figure(weights: FloatArray) -> FloatArray:
        drawn = weights[:, order]
        found = np.cumsum(drawn * hits, axis=1)[:, ends]
        called = np.cumsum(drawn, axis=1)[:, ends]
        precision = found / np.maximum(called, 1e-12)
        steps = np.diff(found, axis=1, prepend=0.0)
        return _ratio((steps * precision).sum(axis=1), found[:, -1])

    return figure


def f1_score(calls: BoolArray, truth: BoolArray) -> Weighted:
    """Harmonic mean of precision and sensitivity, 2 TP / (calls + positives), [images] each."""
    hits, total = (calls & truth).astype(np.float64), calls.astype(np.float64) + truth

    def figure(weights: FloatArray) -> FloatArray:
        return _ratio(2 * (weights @ hits), weights @ total)

    return figure


def share(hits: BoolArray, among: BoolArray) -> Weighted:
    """Share of `hits` in the images `among`, [images] each."""
    both, all_of_them = (hits & among).astype(np.float64), among.astype(np.float64)

    def figure(weights: FloatArray) -> FloatArray:
        return _ratio(weights @ both, weights @ all_of_them)

    return figure


def mean_over(figures: list[Weighted]) -> Weighted:
    """The macro average over classes; classes undefined in a resample are left out of it."""

    def figure(weights: FloatArray) -> FloatArray:
        table = np.stack([each(weights) for each in figures])
        defined = np.isfinite(table)
        return _ratio(np.where(defined, table, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))

    return figure


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    ratio: FloatArray = np.where(below > 0, above / np.maximum(below, 1e-12), np.nan)
    return ratio
