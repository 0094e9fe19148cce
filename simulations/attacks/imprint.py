"""Robbing the Fed (Fowl, Geiping, Czaja, Goldblum, Goldstein 2022): a network built so that its gradient is the images.

The server sends `networks.imprint` and subtracts what neighbouring rows learned. Where one image alone lies
between two edges, the difference of weights over the difference of biases is that image. Clipping scales a
patient's whole vector, which the quotient cancels; only noise stops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from client.privacy.plan import DpPlan
from common import accounting
from common.plan import Plan
from simulations.attacks.images import Pictures, patients
from simulations.attacks.likeness import best_matches, guesses, psnr, recovered, smoothed, ssim
from simulations.attacks.networks import imprint
from simulations.attacks.records import Reconstructions
from simulations.attacks.target import Target, Vector, mechanism, plan_of, step_sum

BINS: Final = 512
_ONE_STEP: Final = 2.0**-10
_MANY_STEPS: Final = 2.0**-30
"""A malicious server's learning rate: after a step the weights are still where the next one needs them."""


@dataclass(frozen=True)
class Arm:
    """One setting under which a hospital answers the malicious server."""

    name: str
    dp: DpPlan | None
    releases: int = 1
    """How often the server sends the same weights again."""

    @property
    def epsilon(self) -> float | None:
        """Of everything the server gets; None without noise, and for noise too small to be accounted for at all."""
        if self.dp is None or self.dp.noise_multiplier < accounting.SMALLEST_SIGMA:
            return None
        dp, steps = self.dp, self.releases * self.dp.steps_per_round
        return accounting.epsilon(dp.sampling_rate, dp.noise_multiplier, steps, dp.delta)


def arms(batch: int, sigmas: tuple[float, ...], plan: Plan) -> tuple[Arm, ...]:
    """No protection, clipping alone, one step of each noise, and everything a whole run of the plan sends."""
    own = DpPlan.from_plan(plan, batch)
    rounds = plan.federation.rounds
    return (
        Arm("no protection", None),
        Arm("clipping alone", mechanism(0.0, batch)),
        *(Arm(f"one step, σ = {sigma:g}", mechanism(sigma, batch)) for sigma in sigmas),
        Arm(f"the plan's ε = {plan.privacy.epsilon:g}, all {rounds} rounds", own, rounds),
    )


def attack(
    target: Target, originals: Pictures, public: Pictures, arm: Arm
) -> tuple[Reconstructions, Pictures]:
    """Everything the server makes of the updates under one arm, and the best match of every original.

    Args:
        target: the code under audit.
        originals: one picture of each patient.
        public: pictures of other patients, from which the server chooses its edges.
        arm: how the hospital protects itself.
    """
    side = originals.shape[1]
    edges = edges_of(public)
    once = arm.dp is None or arm.dp.steps_per_round == 1
    plan = plan_of(side, training={"learning_rate": _ONE_STEP if once else _MANY_STEPS})
    data = patients(originals)
    got = np.zeros(BINS * side * side + BINS + BINS + 1)
    for number in range(1, arm.releases + 1):
        got += step_sum(target, imprint(side, edges), data, plan, arm.dp, round_=number)
    found = best_matches(originals, smoothed(read_back(got, side)))
    return judged(arm, originals, found, guesses(originals, public))


def edges_of(public: Pictures) -> Vector:
    """Where the server puts the edges of its bins, from the brightness of public pictures."""
    edges = np.quantile(public.mean(axis=(1, 2)).astype(np.float64), np.linspace(0.001, 0.999, BINS))
    return np.asarray(edges + np.arange(BINS) * 1e-7, dtype=np.float64)


def read_back(got: Vector, side: int) -> Pictures:
    """Every picture that differences of neighbouring bins give, of an update or of a sum of them."""
    pixels = side * side
    weights, biases = got[: BINS * pixels].reshape(BINS, pixels), got[BINS * pixels : BINS * pixels + BINS]
    rows = np.append(weights[:-1] - weights[1:], weights[-1:], axis=0)
    scales = np.append(biases[:-1] - biases[1:], biases[-1])
    useful = np.abs(scales) > np.abs(scales).max() * 1e-6
    found: Pictures = (rows[useful] / scales[useful, None]).reshape(-1, side, side).astype(np.float32)
    return found


def judged(
    arm: Arm, originals: Pictures, found: Pictures, guess: tuple[float, ...]
) -> tuple[Reconstructions, Pictures]:
    """The record of what was found of each original, against what public pictures already tell, and the pictures."""
    decibels = tuple(psnr(one, other) for one, other in zip(originals, found, strict=True))
    likeness = tuple(ssim(one, other) for one, other in zip(originals, found, strict=True))
    sigma = None if arm.dp is None else arm.dp.noise_multiplier
    record = Reconstructions(
        arm=arm.name,
        sigma=sigma,
        epsilon=arm.epsilon,
        images=len(originals),
        recovered=recovered(decibels, guess),
        psnr=decibels,
        ssim=likeness,
    )
    return record, found
