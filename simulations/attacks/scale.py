"""The direct test of noise and sampling: the one that sees noise half as large, which canaries miss.

All of it is read off the deltas of the real training path. With a sampling rate of nearly nothing every batch is
empty, and a delta is noise alone; with one pixel a patient and no noise, a delta tells who was drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.stats import binom, chi2, norm

from client.privacy.adaptive import AdaptiveClip
from simulations.attacks.images import patients
from simulations.attacks.networks import linear
from simulations.attacks.records import Check
from simulations.attacks.target import Target, Vector, mechanism, plan_of, step_sum

CONFIDENCE: Final = 0.999999
"""Of every band here: one false alarm in a million checks. At 100,000 coordinates it is ±1.1% of the scale."""
SIDE: Final = 320
"""102,400 coordinates."""
_NEVER: Final = 1e-15
"""A sampling rate at which nobody is ever drawn."""
_SIGMA: Final = 1.5
_CLIP: Final = 0.7
"""Not 1, so that noise that forgets to grow with the clip is seen."""


def noise(target: Target, steps: int = 4) -> tuple[Check, ...]:
    """Scale of one step and of several, shape, and independence from one attempt to the next."""
    one = _noise_alone(target, 1) / (_SIGMA * _CLIP)
    again = _noise_alone(target, 1) / (_SIGMA * _CLIP)
    several = _noise_alone(target, steps) / (_SIGMA * _CLIP)
    return (
        _scale("noise, one step", one, 1),
        _scale(f"noise, {steps} steps", several, steps),
        _scale("noise, the registry's network", _noise_of_network(target) / (_SIGMA * _CLIP), 1),
        _adaptive(target),
        _shape(one),
        _fresh(one, again),
    )


def sampling(target: Target, side: int = 32, rate: float = 0.3, rounds: int = 8) -> tuple[Check, ...]:
    """How often a patient enters a step, and that patients enter independently of each other."""
    count = side * side
    pixels = np.zeros((count, count), np.float32)
    np.fill_diagonal(pixels, 40.0)
    data = patients(pixels.reshape(count, side, side))
    dp = mechanism(0.0, count, 1, rate)
    plan = plan_of(side)
    drawn = [
        np.abs(step_sum(target, linear(side), data, plan, dp, round_=r)) > 0.5 for r in range(1, rounds + 1)
    ]
    sizes = np.array([step.sum() for step in drawn], dtype=np.float64)
    tail = (1 - CONFIDENCE) / 2
    total = count * rounds
    low, high = (float(binom.ppf(p, total, rate)) / total for p in (tail, 1 - tail))
    frequency = float(sizes.sum()) / total
    spread = float(((sizes - rate * count) ** 2).sum()) / (count * rate * (1 - rate))
    least, most = (float(chi2.ppf(p, rounds)) for p in (tail, 1 - tail))
    return (
        _within(
            "sampling, rate", f"each patient enters a step with probability {rate:g}", frequency, low, high
        ),
        _within(
            "sampling, independence",
            "the size of a batch varies as Poisson sampling does; a fixed size would not vary",
            spread / rounds,
            least / rounds,
            most / rounds,
        ),
    )


def _noise_alone(target: Target, steps: int) -> Vector:
    blank = patients(np.zeros((1, SIDE, SIDE), np.float32))
    dp = mechanism(_SIGMA, 2.0 / _NEVER, steps, _NEVER, _CLIP)
    return step_sum(target, linear(SIDE), blank, plan_of(SIDE), dp)


def _adaptive(target: Target) -> Check:
    """Where C adapts, the noisy count costs too: the sum's noise is larger, so that both cost what is charged.

    Two steps: the second's C follows from the first's count, of which nobody outside knows the noise; both
    lie within a factor of exp(rate x 6 standard deviations) of C, which at a small rate is nothing.
    """
    rule = AdaptiveClip(quantile=0.5, learning_rate=1e-6, count_std=_SIGMA, least=1e-3, most=1e3)
    dp = replace(mechanism(_SIGMA, 2.0 / _NEVER, 2, _NEVER, _CLIP), adaptive=rule, expected_batch=2.0)
    blank = patients(np.zeros((1, SIDE, SIDE), np.float32))
    got = step_sum(target, linear(SIDE), blank, plan_of(SIDE), dp)
    needed = 1 / math.sqrt(_SIGMA**-2 - (2 * rule.count_std) ** -2)
    return _scale("noise, adaptive clip", got / (needed * _CLIP), 2)


def _noise_of_network(target: Target) -> Vector:
    """The same of a network whose weights are not zero; they cost the delta a little of its last digits."""
    blank = patients(np.ones((2, 32, 32), np.float32))
    dp = mechanism(_SIGMA, 2.0 / _NEVER, 1, _NEVER, _CLIP)
    return step_sum(target, target.network(32), blank, plan_of(32), dp)


def _scale(name: str, values: Vector, steps: int) -> Check:
    count, tail = len(values), (1 - CONFIDENCE) / 2
    low, high = (math.sqrt(chi2.ppf(p, count) / count) for p in (tail, 1 - tail))
    measured = math.sqrt(float(np.mean(values**2)) / steps)
    claim = f"standard deviation over σ C, {count:,} coordinates"
    return _within(name, claim, measured, low, high)


def _shape(values: Vector) -> Check:
    """Excess kurtosis; its standard error for a Gaussian is sqrt(24 / n)."""
    standard = values / values.std()
    excess = float(np.mean(standard**4)) - 3.0
    band = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(24 / len(values))
    return _within("noise, shape", "excess kurtosis of a Gaussian is 0", excess, -band, band)


def _fresh(one: Vector, other: Vector) -> Check:
    together = float(np.corrcoef(one, other)[0, 1])
    band = float(norm.ppf(0.5 + CONFIDENCE / 2)) / math.sqrt(len(one))
    return _within("noise, fresh", "two attempts at one round share no noise", together, -band, band)


def _within(name: str, claim: str, measured: float, low: float, high: float) -> Check:
    return Check(name, claim, measured, low, high, passed=bool(low <= measured <= high))
