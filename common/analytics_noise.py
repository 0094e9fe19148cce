"""How much noise a differentially private sum of counts needs, from the plan alone; both sides work it out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from common.accounting import DpEventSpec, calibrate, rdp_epsilon
from common.analytics import schema_of, sensitivity
from common.errors import PrivacyRefused
from common.plan import Plan
from common.secagg.graph import withstood

LEAST_SHARE: Final = 3.0
"""Standard deviation of one share below which a sum of shares is not close enough to a Gaussian of whole numbers: from 3
on, 10 n exp(-pi^2 9) is below 10^-35 for any number of hospitals (Kairouz, Liu and Steinke 2021, theorem 1)."""
_STEP: Final = 1.002
"""By which the multiplier grows until Renyi accounting agrees; that bound holds for the discrete Gaussian too."""


@dataclass(frozen=True)
class Noise:
    """What has to be in a sum; nothing here is of a patient."""

    multiplier: float
    """z, in units of the sensitivity: what the accountants are told."""
    share: float
    """Standard deviation of one hospital's part, in patients."""

    @classmethod
    def of(cls, plan: Plan, parties: int, threshold: int) -> Noise:
        """The noise that keeps an analysis within its epsilon.

        In any sum are at least `threshold` hospitals, of which as many as the masks withstand may tell their share.

        Args:
            plan: with `analytics.epsilon` above 0.
            parties: hospitals that are asked for a sum.
            threshold: without which it is not opened.

        Raises:
            PrivacyRefused: `accounting-…`; `dp` where a share would be too small to hide in whole numbers.
        """
        multiplier = event_of(plan).noise_multiplier
        honest = max(1, threshold - withstood(parties, threshold))
        share = multiplier * sensitivity(schema_of(plan)) / math.sqrt(honest)
        if share < LEAST_SHARE:
            raise PrivacyRefused(
                "the analysis",
                f"each hospital's share of noise would be {share:.1f} patients, and must be {LEAST_SHARE:g}",
                "Lower analytics.epsilon",
                code="dp",
            )
        return cls(multiplier, share)

    @property
    def event(self) -> DpEventSpec:
        """For the ledger."""
        return DpEventSpec(1.0, self.multiplier, 1)


def event_of(plan: Plan) -> DpEventSpec:
    """What an analysis with noise does to every patient who is counted; errors as `Noise.of`, but for `dp`."""
    return DpEventSpec(1.0, _multiplier(plan.analytics.epsilon, plan.analytics.delta), 1)


@lru_cache(maxsize=64)
def _multiplier(epsilon: float, delta: float) -> float:
    """The noise multiplier of one Gaussian release, by both accountants."""
    found = calibrate(epsilon, delta, 1.0, 1)
    while rdp_epsilon([DpEventSpec(1.0, found, 1)], delta) > epsilon:
        found *= _STEP
    return found
