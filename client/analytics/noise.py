"""A hospital's share of the noise in a sum: whole numbers from a discrete Gaussian, sampled exactly.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", 2020, algorithms 1 to 3: rejection from a discrete
Laplace, with fractions of whole numbers and the operating system's random bits only, so that no rounding of a
floating-point sample can be told from the outside. What is drawn is never recorded apart from the counts it is in.
"""

from __future__ import annotations

import math
import secrets
from fractions import Fraction

import numpy as np

from common.analytics import Counts
from common.analytics_noise import Noise


def noisy(counts: Counts, noise: Noise) -> Counts:
    """Counts with one hospital's share of noise in them; each call draws anew."""
    variance = Fraction(noise.share).limit_denominator(1 << 20) ** 2
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
