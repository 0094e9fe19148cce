"""From differential-privacy events to epsilon, and back to the noise a budget needs. Pure.

An event is what one training stretch did to every patient of a cohort: `steps` times, each patient
was drawn independently with probability q (Poisson), one vector of at most C from each was summed,
and Gaussian noise of standard deviation sigma * C was added. Adjacency: one patient added or removed.

Three accountants answer each question (`common.accountants`): the figure is the tight one's, and it is
refused rather than reported when it lies above the loose upper bound or when a simple attacker does
better than it allows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from common import accountants
from common.accountants import LEAST_DELTA, Accountant, History
from common.errors import PrivacyRefused

SIGMA_STEP: Final = 1e-3
"""Calibrated noise multipliers are whole multiples of this, rounded up."""
LARGEST_SIGMA: Final = 1e4
SMALLEST_SIGMA: Final = 0.1
"""Below this the privacy loss is so wide that no plan could want it, and the grid grows without use."""
SLACK: Final = 0.002
"""Share by which PLD may lie above RDP, or an attacker's delta above the claimed one, before it is an error;
covers the grid of the one and the rounding of the other."""


class Accountants(NamedTuple):
    """Who is asked: the port at which a test puts a wrong accountant."""

    tight: Accountant = accountants.tight
    loose: Accountant = accountants.renyi


TRUSTED: Final = Accountants()


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


@dataclass(frozen=True)
class Schedule:
    """How often every patient of a cohort may be drawn in one run; all of it from the plan."""

    sampling_rate: float
    steps_per_round: int
    rounds: int
    spare_rounds: int = 0
    """Rounds kept for repeats after a failure; paid for in the noise from the start, used or not."""

    @property
    def steps(self) -> int:
        """Noisy steps of all rounds, spare ones included."""
        return (self.rounds + self.spare_rounds) * self.steps_per_round


def epsilon(q: float, sigma: float, steps: int, delta: float) -> float:
    """Epsilon of `steps` Poisson-subsampled Gaussian steps at `delta`.

    Raises:
        PrivacyRefused: `accounting-input` for values outside their domain, `accounting-disagree`
            when the accountants contradict each other.
    """
    return compose([DpEventSpec(q, sigma, steps)], delta)


def compose(events: Iterable[DpEventSpec], delta: float, ask: Accountants = TRUSTED) -> float:
    """Epsilon at `delta` of all these events done to the same patient; order and grouping do not matter.

    Infinite when any event is non-private, 0 when nothing happened. Raises as `epsilon` does.
    """
    _check_delta(delta)
    history = _history(events)
    if any(sigma == 0 for _, sigma, _ in history):
        return math.inf
    return _composed(history, delta, ask) if history else 0.0


def rdp_epsilon(events: Iterable[DpEventSpec], delta: float) -> float:
    """The same by Renyi DP: the independent, looser bound used as cross-check."""
    history = _history(events)
    if any(sigma == 0 for _, sigma, _ in history):
        return math.inf
    return accountants.renyi(history, delta) if history else 0.0


def noise_for(epsilon: float, delta: float, schedule: Schedule) -> float:
    """The noise multiplier that keeps a whole run, spare rounds included, within `epsilon`; see `calibrate`."""
    return calibrate(epsilon, delta, schedule.sampling_rate, schedule.steps)


@lru_cache(maxsize=4096)
def calibrate(epsilon: float, delta: float, q: float, steps: int) -> float:
    """The smallest noise multiplier, rounded up to 0.001, that keeps `steps` steps within `epsilon`.

    Raises:
        PrivacyRefused: `accounting-calibration` when even the largest noise does not suffice,
            `accounting-input` for values outside their domain.
    """
    _check(epsilon > 0 and math.isfinite(epsilon), "epsilon", "is positive and finite")
    _check_event(DpEventSpec(q, 1.0, steps))
    _check_delta(delta)
    low, high = _bracket(epsilon, delta, q, steps)
    while high - low > 1:
        middle = (low + high) // 2
        if accountants.tight(((q, _sigma(middle), steps),), delta) <= epsilon:
            high = middle
        else:
            low = middle
    sigma = _sigma(high)
    compose([DpEventSpec(q, sigma, steps)], delta)
    return sigma


def cross_check(history: History, delta: float, tight: float, loose: float) -> None:
    """Refuse a tight bound that lies above the loose one, or below what an attacker achieves.

    Args:
        history: what was done to a patient; not empty, all of it private.
        delta: of both bounds.
        tight: epsilon by privacy loss distributions.
        loose: epsilon by Renyi DP.

    Raises:
        PrivacyRefused: `accounting-disagree`.
    """
    if not tight <= loose * (1 + SLACK) + SLACK * delta:
        raise _disagree(f"PLD gives epsilon {tight:.4g}, which is above RDP's {loose:.4g}")
    found = accountants.attack(history, tight)
    if not found <= delta * (1 + SLACK):
        raise _disagree(
            f"PLD gives epsilon {tight:.4g} at delta {delta:g}, where an attacker reaches {found:.3g}"
        )


def _disagree(what: str) -> PrivacyRefused:
    return PrivacyRefused(
        "privacy accounting",
        f"{what}; one of them is wrong",
        "Do not train; report the plan's privacy section and the versions installed",
        code="accounting-disagree",
    )


def _bracket(target: float, delta: float, q: float, steps: int) -> tuple[int, int]:
    """Whole multiples of SIGMA_STEP: the first spends too much (or is the floor), the second does not."""
    guess = q * math.sqrt(2 * steps * math.log(1.25 / delta)) / target
    high = max(math.ceil(guess / SIGMA_STEP), math.ceil(SMALLEST_SIGMA / SIGMA_STEP))
    most = math.ceil(LARGEST_SIGMA / SIGMA_STEP)
    high = min(max(high, math.ceil(0.5 / SIGMA_STEP)), most)
    floor = math.floor(SMALLEST_SIGMA / SIGMA_STEP) - 1
    while accountants.tight(((q, _sigma(high), steps),), delta) > target:
        if high == most:
            raise PrivacyRefused(
                "privacy.epsilon",
                f"no noise multiplier up to {LARGEST_SIGMA:g} keeps {steps} steps within {target:g}",
                "Ask for fewer rounds or steps, a lower sampling rate, or a larger epsilon",
                code="accounting-calibration",
            )
        high = min(math.ceil(high * 1.5), most)
    low = high
    while low > floor and accountants.tight(((q, _sigma(low), steps),), delta) <= target:
        high, low = low, max(math.floor(low / 1.5), floor)
    return low, high


def _sigma(thousandths: int) -> float:
    """One spelling of each multiplier, so that what was calibrated is what is later composed."""
    return round(thousandths * SIGMA_STEP, 3)


def _history(events: Iterable[DpEventSpec]) -> History:
    """Events of one kind added up, in one order: equal sums of events are equal histories."""
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        _check_event(event)
        steps[event.sampling_rate, event.noise_multiplier] += event.steps
    return tuple(sorted((q, sigma, n) for (q, sigma), n in steps.items() if n > 0))


@lru_cache(maxsize=4096)
def _composed(history: History, delta: float, ask: Accountants) -> float:
    value = ask.tight(history, delta)
    cross_check(history, delta, value, ask.loose(history, delta))
    return value


def _check_event(event: DpEventSpec) -> None:
    _check(0 < event.sampling_rate <= 1, "sampling_rate", "lies above 0 and is at most 1")
    sigma = event.noise_multiplier
    _check(sigma == 0 or SMALLEST_SIGMA <= sigma < math.inf, "noise_multiplier", "is 0 or at least 0.1")
    _check(event.steps >= 0, "steps", "is not negative")


def _check_delta(delta: float) -> None:
    _check(LEAST_DELTA <= delta < 1, "delta", f"is at least {LEAST_DELTA:g} and below 1")


def _check(holds: bool, what: str, rule: str) -> None:  # noqa: FBT001 - one private guard
    if not holds:
        raise PrivacyRefused(f"privacy accounting: {what}", rule, "Correct the plan", code="accounting-input")
