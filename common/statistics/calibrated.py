"""Whether scores mean what they say, for many weightings of the cells at once.

Slope and intercept: logistic regression of the truth on the logit of the score (Cox 1958; Van Calster et al. 2019); the
intercept is that with the slope held at 1 ("in the large"). Both with Firth's penalty (Firth 1993; Heinze and Schemper
2002), under which they exist in small groups too, where a perfect ranking would make them infinite.

Calibration error: the squared distance of score and observed share in bins, less what chance adds to it, as in Kumar,
Liang and Ma 2019 ("debiased"); bins of equal counts, as Roelofs et al. 2022 advise, common to all groups. In a bin the
mean product of the residuals of two different patients estimates the squared distance without bias, however many images a
patient has; with one image each it is Kumar's estimator for scores constant in a bin. Its root keeps the sign: below
zero means less distance than chance alone would show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from common.models.influence import BoolArray
from common.statistics.cells import Cells
from common.statistics.draws import Table
from common.types import FloatArray

BINS: Final = 10
_LEAST_CHANCE: Final = 1e-6
_STEPS: Final = 30
_LONGEST: Final = 5.0
"""Of one step of Newton's method, in logits."""
_ENOUGH: Final = 1e-6

Figure = Callable[[Table], FloatArray]
"""Weights [cells, draws] to figures [draws]."""


def slope(cells: Cells, scores: FloatArray, truth: BoolArray) -> Figure:
    """Calibration slope; below 1 scores are too extreme."""
    x, y = _logits(scores), truth.astype(np.float64)

    start = _fitted(x, y, np.ones((len(x), 1)), (0.0, 1.0))

    def figure(weights: Table) -> FloatArray:
        begin = (float(start[0][0]), float(start[1][0]))
        return _fitted(x, y, weights.astype(np.float64)[cells.cell], begin)[1]

    return figure


def intercept(cells: Cells, scores: FloatArray, truth: BoolArray) -> Figure:
    """Calibration in the large, in logits; below 0 scores are too high on average."""
    x, y = _logits(scores), truth.astype(np.float64)

    def figure(weights: Table) -> FloatArray:
        return _shifted(x, y, weights.astype(np.float64)[cells.cell])

    return figure


def error(cells: Cells, scores: FloatArray, truth: BoolArray, bins: int = BINS) -> Figure:
    """Debiased calibration error, with its sign."""
    edges = np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, scores, side="right")
    residual: FloatArray = truth - np.asarray(scores, dtype=np.float64)
    sums = np.stack([cells.total(np.where(place == b, residual, 0.0)) for b in range(bins)])
    counts = np.stack([cells.total((place == b).astype(np.float64)) for b in range(bins)])

    def figure(weights: Table) -> FloatArray:
        w = weights.astype(np.float64)
        squared = w * w
        images = counts @ w
        pairs = images**2 - (counts**2) @ squared
        products = (sums @ w) ** 2 - (sums**2) @ squared
        each = np.divide(products, pairs, out=np.zeros_like(pairs), where=pairs > 0.5)
        total = images.sum(axis=0)
        mean = (images * each).sum(axis=0) / np.where(total > 0, total, np.nan)
        root: FloatArray = np.sign(mean) * np.sqrt(np.abs(mean))
        return root

    return figure


def _logits(scores: FloatArray) -> FloatArray:
    kept = np.clip(np.asarray(scores, dtype=np.float64), _LEAST_CHANCE, 1 - _LEAST_CHANCE)
    logits: FloatArray = np.log(kept) - np.log1p(-kept)
    return logits


def _chances(eta: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(eta / 2))


def _fitted(
    x: FloatArray, y: FloatArray, weights: FloatArray, begin: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Intercept and slope [draws] for weights [images, draws]; Fisher's steps on Firth's score, bounded."""
    a, b = (np.full(weights.shape[1], value) for value in begin)
    going = np.arange(weights.shape[1])
    for _ in range(_STEPS):
        step = _step(x, y, weights if len(going) == len(a) else weights[:, going], (a[going], b[going]))
        a[going] += step[0]
        b[going] += step[1]
        # What does not exist (no images, one score) becomes not a number, and stops.
        going = going[np.abs(step).max(axis=0) > _ENOUGH]
        if not len(going):
            break
    return a, b


def _step(x: FloatArray, y: FloatArray, weights: FloatArray, at: tuple[FloatArray, FloatArray]) -> FloatArray:
    p = _chances(at[0] + x[:, None] * at[1])
    info = p * (1 - p)
    info *= weights
    square = x * x
    s0, s1, s2 = info.sum(axis=0), x @ info, square @ info
    det = s0 * s2 - s1 * s1
    det = np.where(det > 1e-12 * np.maximum(s0 * s2, 1e-300), det, np.nan)
    leverage = x[:, None] * (-2 * s1 / det)
    leverage += s2 / det
    leverage += square[:, None] * (s0 / det)
    leverage *= info
    score = weights * (y[:, None] - p)
    leverage *= 0.5 - p
    score += leverage
    u0, u1 = score.sum(axis=0), x @ score
    step = np.stack([s2 * u0 - s1 * u1, s0 * u1 - s1 * u0]) / det
    return np.clip(step, -_LONGEST, _LONGEST)


def _shifted(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Intercept [draws] with the slope held at 1."""
    a = np.zeros(weights.shape[1])
    for _ in range(_STEPS):
        p = _chances(a + x[:, None])
        info = weights * p * (1 - p)
        total = info.sum(axis=0)
        total = np.where(total > 1e-12, total, np.nan)
        score = (weights * (y[:, None] - p) + info / total * (0.5 - p)).sum(axis=0)
        step = np.clip(score / total, -_LONGEST, _LONGEST)
        a = a + step
        if not np.nanmax(np.abs(step), initial=0.0) > _ENOUGH:
            break
    return a
