"""A hospital's share of the noise in a sum: whole numbers from a discrete Gaussian, sampled exactly.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", 2020, algorithms 1 to 3: rejection from a discrete
Laplace, with fractions of whole numbers and the operating system's random bits only, so that no rounding of a
floating-point sample can be told from the outside. What is drawn is never recorded apart from the counts it is in.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from common.accounting import DpEventSpec, calibrate, rdp_epsilon
from common.analytics import Counts, Schema, sensitivity
from common.errors import PrivacyRefused
from common.plan import Plan

LEAST_SHARE: Final = 3.0
"""Standard deviation of one share below which a sum of shares is not close enough to a Gaussian of whole numbers: from 3
on, 10 n exp(-pi^2 9) is below 10^-35 for any number of hospitals (Kairouz, Liu and Steinke 2021, theorem 1)."""
_STEP: Final = 1.002
"""By which the multiplier grows until Renyi accounting agrees; the bound holds for the discrete Gaussian too."""


@dataclass(frozen=True)
class Noise:
    """What has to be in a sum; nothing here is of a patient."""

    multiplier: float
    """z, in units of the sensitivity: what the accountants are told."""
    share: float
    """Standard deviation of one hospital's part, in patients."""

    @classmethod
    def of(cls, plan: Plan, schema: Schema, honest: int) -> Noise:
        """The noise that keeps an analysis within its epsilon.

        Args:
            plan: with `analytics.epsilon` above 0.
            schema: how many tables a patient is in.
            honest: hospitals in any sum that tell nobody their share.

        Raises:
            PrivacyRefused: `accounting-…`; `dp` where a share would be too small to hide in whole numbers.
        """
        epsilon, delta = plan.analytics.epsilon, plan.analytics.delta
        multiplier = calibrate(epsilon, delta, 1.0, 1)
        while rdp_epsilon([DpEventSpec(1.0, multiplier, 1)], delta) > epsilon:
            multiplier *= _STEP
        share = multiplier * sensitivity(schema) / math.sqrt(honest)
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

    def added(self, counts: Counts) -> Counts:
        """Counts with one hospital's share in them."""
        variance = Fraction(self.share).limit_denominator(1 << 20) ** 2
        return counts + np.array([discrete_gaussian(variance) for _ in range(counts.size)], dtype=np.int64)


def discrete_gaussian(variance: Fraction) -> int:
    """A whole number x with probability proportional to exp(-x^2 / (2 variance))."""
    scale = math.isqrt(math.floor(variance)) + 1
    while True:
        drawn = _discrete_laplace(scale)
        if _happens((abs(drawn) - variance / scale) ** 2 / (2 * variance)):
            return drawn


def _discrete_laplace(scale: int) -> int:
    """A whole number x with probability proportional to exp(-|x| / scale)."""
    while True:
        within = secrets.randbelow(scale)
        if not _happens_below_one(Fraction(within, scale)):
            continue
        whole = 0
        while _happens_below_one(Fraction(1)):
            whole += 1
        size = within + scale * whole
        negative = bool(secrets.randbits(1))
        if not (negative and size == 0):
            return -size if negative else size


def _happens(exponent: Fraction) -> bool:
    """Yes with probability exp(-exponent)."""
    for _ in range(math.floor(exponent)):
        if not _happens_below_one(Fraction(1)):
            return False
    return _happens_below_one(exponent - math.floor(exponent))


def _happens_below_one(exponent: Fraction) -> bool:
    """As `_happens`, for an exponent from 0 to 1."""
    count = 1
    while secrets.randbelow(exponent.denominator * count) < exponent.numerator:
        count += 1
    return count % 2 == 1
