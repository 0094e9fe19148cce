"""Three independent answers to "how much privacy did this cost?": tight, loose, and what an attacker finds. Pure.

The tight one composes privacy loss distributions (Koskela et al. 2020; connect-the-dots, Doroshenko et al.
2022, in dp-accounting), which bound epsilon from above at any discretization. Renyi DP (Mironov 2017)
bounds it from above too, more loosely. The attacker sees only the sum of everything that was released
and makes the best test on it: what he achieves bounds delta from below, by closed forms that share no
code with the other two. So `attack <= tight <= renyi`, or one of them is wrong.

A neighbour is a cohort with one patient added or one removed. The two directions are not the same under
sampling; each of the three takes the worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

History = tuple[tuple[float, float, int], ...]
"""(q, sigma, steps), each pair (q, sigma) once, sorted; sigma above 0, steps above 0."""

WIDEST_GRID: Final = 1e-3
"""Of the privacy loss. Measured against 1e-4 where a step's loss is wider: epsilon at most 0.1% higher."""
GRID_SHARE: Final = 0.04
"""A grid cell is at most this share of one step's spread, or rounding up would add up over many steps:
with q = 0.001, sigma = 20 and 10,000 steps a grid of 1e-3 claims four times the epsilon."""
GRID_CELLS: Final = 1 << 18
"""So many cells at most for a whole history: 4 MiB, a fraction of a second."""
LEAST_DELTA: Final = 1e-10
"""Below this the rounding of Fourier transforms is no longer small beside delta."""
ROUNDING: Final = 1e-12
ROUNDING_PER_STEP: Final = 1e-16
"""Taken off delta: more than the rounding of the transforms that was measured below the closed form without
sampling, 2e-13 after 10,000 steps. At most half of delta; the attacker's bound stands behind it."""
RDP_ORDERS: Final = (*range(2, 65), *range(72, 129, 8), *range(160, 513, 32), 1024)
"""Whole orders only: exact sums exist for them, and fractional ones do not always converge."""
_TAIL: Final = 12.0
"""Standard deviations of a count or of a noise beyond which nothing is left in double precision."""

Floats = npt.NDArray[np.float64]


class Accountant(Protocol):
    """An upper bound of epsilon."""

    def __call__(self, history: History, delta: float) -> float:
        """Epsilon at `delta` of all of this done to the same patient; `history` is not empty."""


@lru_cache(maxsize=4096)
def tight(history: History, delta: float) -> float:
    """Epsilon by privacy loss distributions."""
    grid = _grid(history)
    total = _composed(*history[0], grid)
    for part in history[1:]:
        total = total.compose(_composed(*part, grid))
    rounding = ROUNDING + ROUNDING_PER_STEP * sum(steps for _, _, steps in history)
    # dp-accounting keeps both directions and answers with the larger epsilon.
    return float(total.get_epsilon_for_delta(delta - min(rounding, delta / 2)))


def renyi(history: History, delta: float) -> float:
    """Epsilon by Renyi DP."""
    from dp_accounting.rdp import compute_epsilon  # noqa: PLC0415 - slow to import

    total = np.zeros(len(RDP_ORDERS))
    for q, sigma, steps in history:
        total += steps * np.asarray(_renyi_step(q, sigma))
    found, _ = compute_epsilon(RDP_ORDERS, total, delta)
    return float(found)


def attack(history: History, epsilon: float) -> float:
    """The delta that an attacker on the sum of all releases achieves against a claimed `epsilon`.

    With one kind of step, the sum of T releases is N(0, T sigma^2) without the patient, and with them a
    mixture over the number k of steps they were drawn for, Binomial(T, q), of N(k, T sigma^2). The
    ratio of the two grows with the sum, so the best test is a threshold. Of several kinds the worst counts.
    """
    return max(_attack_one(q, sigma, steps, epsilon) for q, sigma, steps in history)


@lru_cache(maxsize=16)
def _composed(q: float, sigma: float, steps: int, grid: float) -> Any:
    one = _one_step(q, sigma, grid)
    return one.self_compose(steps) if steps > 1 else one


@lru_cache(maxsize=64)
def _one_step(q: float, sigma: float, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415 - slow to import

    return pld.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=grid)


def _grid(history: History) -> float:
    """The widest grid, 1e-3 halved as often as needed, that is fine beside the finest step's spread."""
    finest = min(_spread(q, sigma) for q, sigma, _ in history)
    whole = math.sqrt(sum(steps * _spread(q, sigma) ** 2 for q, sigma, steps in history))
    widest = max(_largest_loss(q, sigma) for q, sigma, _ in history)
    floor = (widest + 2 * _TAIL * whole) / GRID_CELLS
    wanted = max(GRID_SHARE * finest, floor)
    return (
        WIDEST_GRID
        if wanted >= WIDEST_GRID
        else WIDEST_GRID / 2 ** math.ceil(-math.log2(wanted / WIDEST_GRID))
    )


def _spread(q: float, sigma: float) -> float:
    """Standard deviation of one step's privacy loss, to first order in q; at most that without sampling."""
    return min(q * math.sqrt(math.expm1(min(sigma**-2, 700.0))), 1 / sigma)


def _largest_loss(q: float, sigma: float) -> float:
    """The privacy loss at the far end of the noise."""
    exponent = (1 + 2 * _TAIL * sigma) / (2 * sigma**2)
    return max(exponent + math.log(q), q * math.expm1(min(exponent, 1.0)))


@lru_cache(maxsize=1024)
def _renyi_step(q: float, sigma: float) -> tuple[float, ...]:
    """Renyi divergence of one step at each of RDP_ORDERS; steps add up."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent  # noqa: PLC0415 - slow to import
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415 - slow to import

    accountant = RdpAccountant(orders=RDP_ORDERS)
    accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)))
    return tuple(float(divergence) for divergence in accountant.rdp)


def _attack_one(q: float, sigma: float, steps: int, epsilon: float) -> float:
    from scipy.special import log_ndtr, ndtr  # noqa: PLC0415 - slow to import
    from scipy.stats import binom  # noqa: PLC0415 - slow to import

    spread = sigma * math.sqrt(steps)
    width = _TAIL * math.sqrt(q * (1 - q) * steps) + _TAIL
    drawn = np.arange(max(0, math.floor(q * steps - width)), min(steps, math.ceil(q * steps + width)) + 1)
    log_chance: Floats = binom.logpmf(drawn, steps, q)
    chance: Floats = np.exp(log_chance)

    def log_ratio(total: float) -> float:
        """Of the densities with and without the patient."""
        exponents = log_chance + drawn * (2 * total - drawn) / (2 * spread**2)
        top = float(exponents.max())
        return top + math.log(float(np.exp(exponents - top).sum()))

    def beyond(total: float, sign: float) -> tuple[float, float]:
        """Chance of a sum above (sign 1) or below (sign -1) `total`: with the patient, log of it without."""
        return float(chance @ ndtr(sign * (drawn - total) / spread)), float(log_ndtr(-sign * total / spread))

    low, high = -_TAIL * spread, steps + _TAIL * spread
    present, log_absent = beyond(_crossing(log_ratio, epsilon, low, high), 1.0)
    removed = present - math.exp(min(epsilon + log_absent, 700.0))
    present, log_absent = beyond(_crossing(log_ratio, -epsilon, low, high), -1.0)
    added = math.exp(log_absent) - (math.exp(min(epsilon + math.log(present), 700.0)) if present > 0 else 0.0)
    return max(removed, added, 0.0)


def _crossing(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a rising function passes `value`, or the end of the range that is nearer to it."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return high
