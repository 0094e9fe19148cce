"""Figures with the share each patient has in their error, so that images of one patient count as one.

A figure is a value and an influence: one number per patient, whose sum of squares is the variance of
the value. Figures of the same patients can be averaged over classes or subtracted between models and
groups, and the variance of the result, correlation included, is again the sum of squares.

AUROC: DeLong, DeLong and Clarke-Pearson 1988, clustered as in Obuchowski, "Nonparametric analysis of
clustered ROC curve data", Biometrics 1997, placements by ranks as in Sun and Xu 2014. Where a patient
has images of both kinds, the small-sample factor of the cross term is the geometric mean of the two
classes' factors; Obuchowski takes that of all patients. With one kind per patient they are the same.
Rates: ratio estimator of a clustered proportion (Rao and Scott 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from common.types import FloatArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """A value in [0, 1], or a difference of two, with each patient's influence on it."""

    value: float
    influence: FloatArray
    """[patients]; the sum of squares is the variance."""
    units: int
    """Images (or, for AUROC, patients of the rarer class) the value rests on."""
    patients: int
    """Patients the value rests on: for AUROC, of the rarer class."""
    measurable: bool = True
    """False when a single patient carries a class, so that no variance can be had."""

    @property
    def error(self) -> float:
        """Standard error of the value."""
        return float(np.sqrt(np.square(self.influence).sum()))

    def minus(self, other: Figure) -> Figure:
        """The difference of two figures of the same patients, in the same order."""
        return Figure(
            self.value - other.value,
            self.influence - other.influence,
            min(self.units, other.units),
            min(self.patients, other.patients),
            self.measurable and other.measurable,
        )


def mean_of(figures: Sequence[Figure]) -> Figure:
    """The unweighted mean of figures of the same patients: the macro average over classes."""
    return Figure(
        float(np.mean([f.value for f in figures])),
        np.mean([f.influence for f in figures], axis=0),
        sum(f.units for f in figures) if len(figures) > 1 else figures[0].units,
        min(f.patients for f in figures),
        all(f.measurable for f in figures),
    )


def columns(scores: FloatArray, labels: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Scores and truth as [images, classes], whatever the task.

    Args:
        scores: [images] or [images, 1] for a binary task, else [images, classes].
        labels: 0 or 1 of the same shape, or class numbers [images] for a multiclass task.

    Raises:
        DataError: when the two do not belong together, or a score is not a number.
    """
    table = np.asarray(scores, dtype=np.float64)
    table = table.reshape(len(table), -1)
    truth = np.asarray(labels)
    if truth.ndim == 1 and table.shape[1] > 1:
        truth = truth[:, None] == np.arange(table.shape[1])
    truth = truth.reshape(len(truth), -1)
    if truth.shape != table.shape or not np.isfinite(table).all():
        raise DataError(
            "scores", "there must be one finite score for each label", "Check the prediction step"
        )
    return table, truth > 0.5


def patient_codes(patients: npt.ArrayLike) -> IntArray:
    """Patients numbered from 0 in sorted order, one number per image."""
    return np.unique(np.asarray(patients), return_inverse=True)[1].reshape(-1).astype(np.int64)


def auroc_figure(
    scores: FloatArray, truth: BoolArray, codes: IntArray, among: BoolArray | None = None
) -> Figure | None:
    """Area under the ROC curve of one class; None where a class has no image.

    Args:
        scores: [images].
        truth: [images].
        codes: patient number of each image, as `patient_codes` gives it.
        among: [images] the images that count; all where not given.
    """
    size = int(codes.max()) + 1
    if among is not None:
        scores, truth, codes = scores[among], truth[among], codes[among]
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return None
    ranks = midranks(scores)
    above = (ranks[truth] - midranks(positive)) / len(negative)
    below = 1 - (ranks[~truth] - midranks(negative)) / len(positive)
    value = float(above.mean())
    influence = np.zeros(size)
    counts = []
    for placement, owner in ((above, codes[truth]), (below, codes[~truth])):
        count = len(np.unique(owner))
        influence += _small_sample(count) * np.bincount(owner, placement - value, size) / len(owner)
        counts.append(count)
    # Patients of both kinds cannot be paired with themselves.
    pairs = min(*counts, max(1, len(np.unique(codes)) // 2))
    return Figure(value, influence, pairs, pairs, measurable=min(counts) > 1)


def rate_figure(hits: BoolArray, among: BoolArray, codes: IntArray) -> Figure | None:
    """Share of `hits` in the images `among`; None where there is none.

    Args:
        hits: [images].
        among: [images] the images that count.
        codes: patient number of each image.
    """
    units = int(among.sum())
    if not units:
        return None
    value = float(hits[among].mean())
    size = int(codes.max()) + 1
    patients = len(np.unique(codes[among]))
    spread = np.bincount(codes[among], hits[among] - value, size) / units
    return Figure(value, _small_sample(patients) * spread, units, patients, measurable=patients > 1)


def midranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return ranks


def one_class(needed: str) -> DataError:
    """The error for a figure that does not exist because `needed` is not among the images."""
    rule = f"the figure needs {needed} and there are none"
    return DataError("test images", rule, "Leave it out or add cases", code="one-class")


def _small_sample(count: int) -> float:
    return math.sqrt(count / (count - 1)) if count > 1 else 1.0
