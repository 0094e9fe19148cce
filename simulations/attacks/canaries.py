"""One training run as an audit of its own epsilon (Steinke, Nasr, Jagielski 2023).

Each canary patient is in the cohort with probability 1/2. Their images make the gradient of `networks.linear`
a direction of their own of norm C: the most a patient can contribute. The auditor, who sees every noisy sum,
guesses who was in from the dot products. Too many right guesses contradict a small epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from client.privacy.plan import DpPlan
from common import accounting
from simulations.attacks.images import patients
from simulations.attacks.networks import linear
from simulations.attacks.records import Canaries
from simulations.attacks.target import Target, plan_of, step_sum

LIFT: Final = 40.0
"""Standard deviation of a canary's pixels: its gradient is far longer than C, and is clipped to it."""
SHARES: Final = (0.1, 0.25, 0.5, 1.0)
"""Of the canaries, how many are guessed at: the surest ones. All are tried, and each pays for the others."""
CONFIDENCE: Final = 0.95
_LARGEST: Final = 30.0


@dataclass(frozen=True)
class Setting:
    """How large an audit by canaries is."""

    canaries: int = 500
    side: int = 224
    """The more pixels, the less canaries disturb each other."""
    steps: int = 4
    delta: float = 1e-5


def plant(
    target: Target, setting: Setting, arm: str, epsilon: float | None, rng: np.random.Generator
) -> Canaries:
    """Train once with canaries and bound epsilon from below.

    Args:
        target: the code under audit.
        setting: its size.
        arm: its name in the record.
        epsilon: what is claimed, and calibrated for; None: no protection at all.
        rng: draws canaries and who is in; privacy noise is the target's own.
    """
    shape = (setting.canaries, setting.side, setting.side)
    images = rng.standard_normal(shape, dtype=np.float32) * np.float32(LIFT)
    inside = rng.random(setting.canaries) < 0.5
    labels = np.zeros(setting.canaries, np.float32)
    cohort = patients(images, labels).subset(np.flatnonzero(inside))
    plan = plan_of(setting.side, training={"learning_rate": 2.0**-20, "local_epochs": setting.steps})
    total = step_sum(target, linear(setting.side), cohort, plan, _mechanism(setting, epsilon))
    scores = images.reshape(setting.canaries, -1) @ total.astype(np.float32)
    guesses, correct, bound = best_bound(scores.astype(np.float64), inside, setting.delta)
    return Canaries(arm, epsilon, setting.delta, setting.canaries, guesses, correct, bound)


def best_bound(
    scores: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_], delta: float
) -> tuple[int, int, float]:
    """The best lower bound over `SHARES`, corrected for having tried them all: (guesses, correct, epsilon).

    Half of the guesses go to the highest scores, "in", and half to the lowest, "out".
    """
    order = np.argsort(scores)
    best = (0, 0, 0.0)
    for share in SHARES:
        half = int(len(scores) * share) // 2
        correct = int(inside[order[len(scores) - half :]].sum() + (~inside[order[:half]]).sum())
        bound = lower_bound(len(scores), 2 * half, correct, delta, (1 - CONFIDENCE) / len(SHARES))
        best = max(best, (2 * half, correct, bound), key=lambda found: found[2])
    return best


def lower_bound(canaries: int, guesses: int, correct: int, delta: float, risk: float) -> float:
    """The largest epsilon that so many right guesses rule out, but for a chance of `risk`; 0 where none is.

    Steinke et al. 2023, theorem 5.2: under (epsilon, delta)-DP the chance of v or more right guesses of r is
    at most P[B >= v] + 2 m delta max_i P[v - i <= B < v] / i, with B binomial of r and e^eps / (1 + e^eps).
    """
    if not guesses or _chance(canaries, guesses, correct, 0.0, delta) > risk:
        return 0.0
    low, high = 0.0, _LARGEST
    while high - low > 1e-3:
        middle = (low + high) / 2
        if _chance(canaries, guesses, correct, middle, delta) > risk:
            high = middle
        else:
            low = middle
    return low


def _chance(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    right = 1 / (1 + np.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    just_below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    steepest = float((just_below / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, tail + 2 * canaries * delta * steepest)


def _mechanism(setting: Setting, epsilon: float | None) -> DpPlan | None:
    if epsilon is None:
        return None
    sigma = accounting.calibrate(epsilon, setting.delta, 1.0, setting.steps)
    return DpPlan(1.0, 1.0, sigma, 1, setting.canaries / 2, setting.steps, setting.delta, 1)
