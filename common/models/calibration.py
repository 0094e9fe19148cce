"""Whether a score means what it says, and where to cut it; shapes as in `common.models.metrics`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.messages import CalibrationBin
from common.models.influence import columns, one_class, patient_codes
from common.types import FloatArray


def youden_threshold(scores: FloatArray, labels: npt.ArrayLike) -> float:
    """Where sensitivity + specificity - 1 is largest, for a binary task (Youden 1950).

    Midway between the lowest score called positive and the next below it; of equally good thresholds
    the lowest, which misses least.
    """
    table, truth = columns(scores, labels)
    values, inverse = np.unique(table.reshape(-1), return_inverse=True)
    hits = np.bincount(inverse, truth.reshape(-1), len(values))
    alarms = np.bincount(inverse, ~truth.reshape(-1), len(values))
    if not hits.sum() or not alarms.sum():
        raise one_class("positive and negative images")
    missed, rejected = (np.concatenate([[0.0], np.cumsum(x)[:-1]]) / x.sum() for x in (hits, alarms))
    # Counts decide ties, so that rounding cannot.
    best = int(np.argmax(np.round(rejected - missed, 12)))
    return float(values[best] if best == 0 else (values[best] + values[best - 1]) / 2)


def calibration(
    scores: FloatArray, labels: npt.ArrayLike, patients: npt.ArrayLike, bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Mean score and observed share of positives in equal steps of [0, 1]; empty bins are left out.

    Args:
        scores: probabilities in [0, 1]; several classes are read one after another.
        labels: as everywhere here.
        patients: as everywhere here; a bin counts those with an image in it.
        bins: number of steps.
    """
    table, truth = columns(scores, labels)
    owner = np.broadcast_to(patient_codes(patients)[:, None], table.shape)
    place = np.clip((table * bins).astype(np.int64), 0, bins - 1)
    filled = ((place == k, k) for k in range(bins))
    return tuple(
        CalibrationBin(
            float(table[inside].mean()), float(truth[inside].mean()), len(np.unique(owner[inside]))
        )
        for inside, _ in filled
        if inside.any()
    )


def ece(scores: FloatArray, labels: npt.ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: mean distance of score and observed share, weighted by images.

    A perfectly calibrated model shows about 0.075 with 100 images: read it beside their number.
    """
    table, truth = columns(scores, labels)
    place = np.clip((table * bins).astype(np.int64), 0, bins - 1).reshape(-1)
    gap = np.bincount(place, (table - truth).reshape(-1), bins)
    return float(np.abs(gap).sum() / table.size)
