"""From differential-privacy events to epsilon, and back to the noise a budget needs. Pure.

An event is what one training stretch did to every patient of a cohort: `steps` times, each patient
was drawn independently with probability q (Poisson), one vector of at most C from each was summed,
and Gaussian noise of standard deviation sigma * C was added. Adjacency: one patient added or removed.

Composition is by privacy loss distributions (Koskela et al. 2020; connect-the-dots, Doroshenko et
al. 2022, in dp-accounting), which bound epsilon from above at any discretization. Renyi DP (Mironov
2017) bounds it from above too, more loosely; a PLD figure above the RDP figure is therefore an error
of one of the two, and is refused rather than reported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from common.errors import PrivacyRefused

INTERVAL: Final = 1e-3
"""Grid of the privacy loss. Measured against 1e-4: epsilon at most 0.1% higher, ten times faster."""
SIGMA_STEP: Final = 1e-3
"""Calibrated noise multipliers are whole multiples of this, rounded up."""
LARGEST_SIGMA: Final = 1e4
SMALLEST_SIGMA: Final = 0.1
"""Below this the privacy loss is so wide that no plan could want it, and the grid grows without use."""
RDP_ORDERS: Final = (*range(2, 65), *range(72, 129, 8), *range(160, 513, 32), 1024)
"""Whole orders only: exact sums exist for them, and fractional ones do not always converge."""
SLACK_RELATIVE: Final = 0.01
SLACK_ABSOLUTE: Final = 0.01
"""How far PLD may lie above RDP before it is an error; covers the grid of both."""


@dataclass(frozen=True, order=True)
class DpEventSpec:
    """What happened, or is about to happen, to every patient of a cohort; holds nothing of patients."""

    sampling_rate: float
    """q, in (0, 1]."""
    noise_multiplier: float
    """sigma, in units of the clip C; 0 is a non-private release, whose epsilon is infinite."""
    steps: int

    @property
    def private(self) -> bool:
        """Whether any noise protects this event."""
        return self.noise_multiplier > 0


def epsilon(q: float, sigma: float, steps: int, delta: float) -> float:
    """Epsilon of `steps` Poisson-subsampled Gaussian steps at `delta`.

    Raises:
        PrivacyRefused: `accounting-input` for values outside their domain, `accounting-mismatch`
            when the two accountants contradict each other.
    """
    return compose([DpEventSpec(q, sigma, steps)], delta)


def compose(events: Iterable[DpEventSpec], delta: float) -> float:
    """Epsilon at `delta` of all these events done to the same patient; order does not matter.

    Infinite when any event is non-private, 0 when nothing happened. Raises as `epsilon` does.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        _check_event(event)
        steps[event.sampling_rate, event.noise_multiplier] += event.steps
    _check(0 < delta < 1, "delta", "lies strictly between 0 and 1")
    history = tuple(sorted((q, s, n) for (q, s), n in steps.items() if n > 0))
    if any(sigma == 0 for _, sigma, _ in history):
        return math.inf
    return _composed(history, delta)


def rdp_epsilon(events: Iterable[DpEventSpec], delta: float) -> float:
    """The same by Renyi DP: the independent, looser bound used as cross-check."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent  # noqa: PLC0415 - slow to import
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415 - slow to import

    accountant = RdpAccountant(orders=RDP_ORDERS)
    for event in events:
        if not event.private:
            return math.inf
        step = PoissonSampledDpEvent(event.sampling_rate, GaussianDpEvent(event.noise_multiplier))
        accountant.compose(step, event.steps)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=4096)
def calibrate(epsilon: float, delta: float, q: float, steps: int) -> float:
    """The smallest noise multiplier, rounded up to 0.001, that keeps `steps` steps within `epsilon`.

    Raises:
        PrivacyRefused: `accounting-calibration` when even the largest noise does not suffice,
            `accounting-input` for values outside their domain.
    """
    _check(epsilon > 0 and math.isfinite(epsilon), "epsilon", "is positive and finite")
    _check_event(DpEventSpec(q, 1.0, steps))
    _check(0 < delta < 1, "delta", "lies strictly between 0 and 1")
    low, high = _bracket(epsilon, delta, q, steps)
    while high - low > 1:
        middle = (low + high) // 2
        if _pld_epsilon(((q, _sigma(middle), steps),), delta) <= epsilon:
            high = middle
        else:
            low = middle
    sigma = _sigma(high)
    compose([DpEventSpec(q, sigma, steps)], delta)
    return sigma


def cross_check(pld: float, rdp: float) -> None:
    """Refuse when the tight bound lies above the loose one.

    Raises:
        PrivacyRefused: `accounting-mismatch`.
    """
    if not pld <= rdp * (1 + SLACK_RELATIVE) + SLACK_ABSOLUTE:
        raise PrivacyRefused(
            "privacy accounting",
            f"PLD gives epsilon {pld:.4g}, which is above RDP's {rdp:.4g}; one of them is wrong",
            "Do not train; report the plan's privacy section and the versions installed",
            code="accounting-mismatch",
        )


def _bracket(target: float, delta: float, q: float, steps: int) -> tuple[int, int]:
    """Whole multiples of SIGMA_STEP: the first spends too much (or is the floor), the second does not."""
    guess = q * math.sqrt(2 * steps * math.log(1.25 / delta)) / target
    high = max(math.ceil(guess / SIGMA_STEP), math.ceil(SMALLEST_SIGMA / SIGMA_STEP))
    high = max(high, math.ceil(0.5 / SIGMA_STEP))
    floor = math.floor(SMALLEST_SIGMA / SIGMA_STEP) - 1
    while _pld_epsilon(((q, _sigma(high), steps),), delta) > target:
        if _sigma(high) > LARGEST_SIGMA:
            raise PrivacyRefused(
                "privacy.epsilon",
                f"no noise multiplier up to {LARGEST_SIGMA:g} keeps {steps} steps within {target:g}",
                "Ask for fewer rounds or steps, a lower sampling rate, or a larger epsilon",
                code="accounting-calibration",
            )
        high = math.ceil(high * 1.5)
    low = high
    while low > floor and _pld_epsilon(((q, _sigma(low), steps),), delta) <= target:
        high, low = low, max(math.floor(low / 1.5), floor)
    return low, high


def _sigma(thousandths: int) -> float:
    """One spelling of each multiplier, so that what was calibrated is what is later composed."""
    return round(thousandths * SIGMA_STEP, 3)


@lru_cache(maxsize=4096)
def _composed(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    if not history:
        return 0.0
    value = _pld_epsilon(history, delta)
    cross_check(value, rdp_epsilon((DpEventSpec(*part) for part in history), delta))
    return value


@lru_cache(maxsize=4096)
def _pld_epsilon(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    total = _pld(*history[0])
    for part in history[1:]:
        total = total.compose(_pld(*part))
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=32)
def _pld(q: float, sigma: float, steps: int) -> Any:
    """The composed privacy loss distribution of one kind of step; pessimistic, add or remove."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415 - slow to import

    one = pld.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=INTERVAL)
    return one.self_compose(steps) if steps > 1 else one


def _check_event(event: DpEventSpec) -> None:
    _check(0 < event.sampling_rate <= 1, "sampling_rate", "lies above 0 and is at most 1")
    sigma = event.noise_multiplier
    _check(sigma == 0 or SMALLEST_SIGMA <= sigma < math.inf, "noise_multiplier", "is 0 or at least 0.1")
    _check(event.steps >= 0, "steps", "is not negative")


def _check(holds: bool, what: str, rule: str) -> None:  # noqa: FBT001 - one private guard
    if not holds:
        raise PrivacyRefused(f"privacy accounting: {what}", rule, "Correct the plan", code="accounting-input")
