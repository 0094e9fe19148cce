"""Calibration at one site: slope and offset of the scores' log-odds, fitted on validation patients. Ranks stay.

Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his targets, which keep a perfect separation from
an infinite slope; by Newton's method with a line search as Lin, Lin, Weng, "A Note on Platt's Probabilistic Outputs",
Machine Learning 68, 2007. With the offset at 0 it is temperature scaling (Guo, Pleiss, Sun, Weinberger, ICML 2017).
A slope that is not positive would turn ranks round: then the scores stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from client.evaluation import Scores

Float64 = npt.NDArray[np.float64]
_NEAR: Final = 1e-15
"""Chances are kept this far from 0 and 1, where a float64 still tells them apart."""
_SHORTEST: Final = 1e-7
"""Of a step, as a share of Newton's."""
_STEPS: Final = 50
_ENOUGH: Final = 1e-8


@dataclass(frozen=True)
class Platt:
    """Of one output."""

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, chances: Float64) -> Float64:
        """Probabilities as calibrated, any shape."""
        return _sigmoid(self.slope * _logits(chances) + self.offset)


def fit(chances: Float64, truth: npt.NDArray[np.bool_], weights: Float64) -> Platt:
    """Fit one output's slope and offset.

    Args:
        chances: [n] probabilities.
        truth: [n].
        weights: [n], for example one over a patient's images, so that patients count alike.

    Returns:
        The identity where there is one class only, or the best slope is not positive.
    """
    positives, negatives = float(weights[truth].sum()), float(weights[~truth].sum())
    if min(positives, negatives) <= 0:
        return Platt()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    inputs = np.stack([_logits(chances), np.ones(len(chances))], axis=1)
    found: Float64 = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        p = _sigmoid(inputs @ found)
        gradient = inputs.T @ (weights * (p - target))
        curve = (inputs * (weights * p * (1 - p))[:, None]).T @ inputs + 1e-9 * np.eye(2)
        step = np.asarray(np.linalg.solve(curve, gradient), np.float64)
        found = _along(found, step, lambda at: _loss(inputs @ at, target, weights))
        if np.abs(gradient).max() < _ENOUGH:
            break
    return Platt(float(found[0]), float(found[1])) if found[0] > 0 else Platt()


def calibrated(scores: Scores, validation: Scores) -> Scores:
    """The scores with each output's slope and offset, fitted on the hospital's validation patients."""
    truth = validation.truth
    _, codes = np.unique(validation.patient_of, return_inverse=True)
    weights = 1.0 / np.bincount(codes)[codes]
    columns = [
        fit(np.asarray(validation.scores[:, k], np.float64), truth[:, k], weights).apply(
            np.asarray(scores.scores[:, k], np.float64)
        )
        for k in range(scores.scores.shape[1])
    ]
    return replace(scores, scores=np.stack(columns, axis=1))


def _along(found: Float64, step: Float64, loss: Callable[[Float64], float]) -> Float64:
    """A step that does not raise the loss, halved until it does not."""
    before, size = loss(found), 1.0
    while size > _SHORTEST:
        at: Float64 = found - size * step
        if loss(at) <= before:
            return at
        size /= 2
    return found


def _loss(logits: Float64, target: Float64, weights: Float64) -> float:
    return float(weights @ (np.logaddexp(0, logits) - target * logits))


def _logits(chances: Float64) -> Float64:
    near = np.clip(chances, _NEAR, 1 - _NEAR)
    return np.asarray(np.log(near / (1 - near)))


def _sigmoid(logits: Float64) -> Float64:
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))
