"""Where the evidence lies: inside the lungs, inside the finding, or elsewhere. Described, never judged.

    share    heat inside / all heat, a patient's heat summing to 1 (Grad-CAM, Selvaraju et al. 2017)
    beside   the area inside / all area: what heat that lies anywhere alike would give

The mean over patients with a bootstrap interval. Maps of evidence explain little and can mislead (Adebayo et al. 2018,
"Sanity checks for saliency maps"), which is why no alarm hangs on them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.messages import Estimate
from common.types import FloatArray
from server.records_bias import Chance, Probe

_RESAMPLES: Final = 300


def shares(heat: FloatArray, inside: npt.NDArray[np.float32]) -> FloatArray:
    """[patients, 2]: the share of heat inside, and of area.

    Args:
        heat: [patients, rows, columns], none negative; a patient without any gets the share of area.
        inside: [patients, rows, columns] from 0 to 1.
    """
    area = inside.mean(axis=(1, 2)).astype(np.float64)
    total = heat.sum(axis=(1, 2))
    held = (heat * inside).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    return np.stack([np.where(total > 0, held, area), area], axis=1)


def saliency(found: FloatArray, subject: str, rng: np.random.Generator) -> Probe:
    """The record of `shares` of some patients; `subject` is `lungs` or `finding`."""
    count = len(found)
    draws = [found[rng.integers(count, size=count)].mean(axis=0) for _ in range(_RESAMPLES)]
    low, high = np.quantile(np.array(draws)[:, 0], [0.025, 0.975])
    bands = np.quantile(np.array(draws)[:, 1], [0.025, 0.975])
    value = float(found[:, 0].mean())
    return Probe(
        "saliency",
        subject,
        Estimate(value, min(value, float(low)), max(value, float(high))),
        judged=False,
        patients=count,
        chance=Chance(float(bands[0]), float(bands[1])),
    )
