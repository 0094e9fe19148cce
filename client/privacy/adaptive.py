"""Adaptive clipping (Andrew, Thakkar, McMahan and Ramaswamy 2021): C follows a quantile of the patients' norms.

Beside the clipped sum, each step counts for how many of its patients the norm was at most C. A patient
moves that count, taken as a bit less one half, by at most 1/2 (section 2.1). The count gets Gaussian noise
of standard deviation `count_std`, and C is multiplied by exp(-rate * (share - quantile)).

Sum and count together are one Gaussian release of the calibrated multiplier z (theorem 1): the sum gets
z_sum = (z^-2 - (2 count_std)^-2)^(-1/2), slightly more than z. The ledger therefore charges what it charges
for a fixed clip. What C becomes is computed from released numbers alone and costs nothing more; it may be
carried from round to round, and kept or lost, without any effect on privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from common.errors import PrivacyRefused

LEAST_SHARE: Final = 1e-3
"""C never falls below this share of where it began: a run of unlucky counts must not end the training."""


@dataclass(frozen=True)
class AdaptiveClip:
    """The rule by which C moves; from the plan and the hospital's policy, never from patients."""

    quantile: float
    """The share of a step's patients whose norm shall be at most C."""
    learning_rate: float
    """How far C moves a step: by a factor of exp(learning_rate * how far off the share is)."""
    count_std: float
    """sigma_b: standard deviation of the noise on the count, in patients."""
    least: float
    most: float
    """C stays within; `most` is the hospital's ceiling."""

    def sum_multiplier(self, noise_multiplier: float) -> float:
        """z_sum, so that the noisy sum and the noisy count together are one release of `noise_multiplier`.

        Raises:
            PrivacyRefused: `dp-count-noise`: the count alone would cost more than both may.
        """
        left = noise_multiplier**-2 - (2 * self.count_std) ** -2
        if not left > 0:
            raise PrivacyRefused(
                "privacy.count_noise",
                "the noise on the count is more than half the noise multiplier",
                "Raise privacy.count_noise above 0.5",
                code="dp-count-noise",
            )
        return 1 / math.sqrt(left)

    def moved(self, clip: float, noisy_centred: float, expected_batch: float) -> float:
        """The next step's C.

        Args:
            clip: this step's C.
            noisy_centred: patients within C less half of all drawn, noise added.
            expected_batch: q times the public bucket. The number drawn is not known outside, so the share
                is exact for the quantile 0.5 and otherwise drawn towards it as far as the bucket is coarse.
        """
        share = noisy_centred / expected_batch + 0.5
        factor = math.exp(min(max(-self.learning_rate * (share - self.quantile), -50.0), 50.0))
        return min(max(clip * factor, self.least), self.most)
