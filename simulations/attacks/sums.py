"""What the server could reconstruct under secure aggregation: the same attacks on the opened sum over hospitals.

A masked update is as random as noise (`tests/client/test_masked_transcript.py`), so that the sum is all there is to
attack. It is made here as masked rounds make it: each hospital's update in fixed point, summed in the ring, turned
back. One hospital's pictures are sought; the others have other patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from client.privacy.plan import DpPlan
from common.models import Network
from common.secagg import masks
from common.secagg.coding import Coding
from simulations.attacks import imprint, inversion
from simulations.attacks.images import Pictures, chests, patients
from simulations.attacks.likeness import best_matches, guesses, psnr, recovered, smoothed
from simulations.attacks.networks import imprint as imprint_network
from simulations.attacks.networks import smooth
from simulations.attacks.records import SumOf
from simulations.attacks.target import Target, Vector, mechanism, plan_of, step_sum

SITES: Final = (3, 8, 20)
SIGMA: Final = 1.0
"""Noise of every hospital, in clips."""
_BITS: Final = 24
_ONE_STEP: Final = 2.0**-10
_ROOM: Final = 2.0
"""The range that the attacker's plan gives values, in the largest of them; finer steps would only help it."""


@dataclass(frozen=True)
class Attacked:
    """One hospital's pictures, public ones, and the chance from which other hospitals' patients are drawn."""

    originals: Pictures
    public: Pictures
    rng: np.random.Generator


def imprinted(target: Target, attacked: Attacked, sites: int) -> SumOf:
    """The imprint attack (`simulations.attacks.imprint`) on the sum over `sites` hospitals."""
    side, edges = attacked.originals.shape[1], imprint.edges_of(attacked.public)
    rate: dict[str, object] = {"learning_rate": _ONE_STEP}

    def seen(dp: DpPlan | None) -> Pictures:
        got = _opened(
            [
                step_sum(
                    target, imprint_network(side, edges), patients(own), plan_of(side, training=rate), dp
                )
                for own in hospitals
            ]
        )
        return best_matches(attacked.originals, smoothed(imprint.read_back(got, side)))

    hospitals = _hospitals(attacked, sites)
    return _row("imprint", attacked, sites, seen)


def inverted(target: Target, attacked: Attacked, sites: int, steps: int) -> SumOf:
    """Inversion (`simulations.attacks.inversion`) of the sum over `sites` hospitals with one patient each."""
    side = attacked.originals.shape[1]

    def net() -> Network:
        return smooth(side, seed=1)

    def seen(dp: DpPlan | None) -> Pictures:
        got = _opened([step_sum(target, net(), patients(own), plan_of(side), dp) for own in hospitals])
        return inversion.nearest(attacked.originals, got, steps)

    hospitals = _hospitals(attacked, sites)
    return _row("inversion", attacked, sites, seen)


def _hospitals(attacked: Attacked, sites: int) -> list[Pictures]:
    """The attacked one first; the others have as many patients, whom nobody has seen."""
    count, side = len(attacked.originals), attacked.originals.shape[1]
    others = chests(attacked.rng, count * (sites - 1), side)
    return [attacked.originals, *(others[at : at + count] for at in range(0, len(others), count))]


def _opened(updates: list[Vector]) -> Vector:
    """The sum as the server has it once it is opened: fixed point of every update, added in the ring."""
    most = max(float(np.abs(update).max()) for update in updates)
    coding = Coding(_BITS, _ROOM * most, 1, len(updates))
    total = np.zeros(updates[0].size, masks.dtype_of(_BITS))
    for update in updates:
        total += coding.encode(update.astype(np.float32), 1)
        masks.cut(total, _BITS)
    return coding.decode(total)


def _row(attack: str, attacked: Attacked, sites: int, seen: Callable[[DpPlan | None], Pictures]) -> SumOf:
    guess = guesses(attacked.originals, attacked.public)
    counts, means = [], []
    for dp in (None, mechanism(SIGMA, len(attacked.originals))):
        decibels = tuple(psnr(one, other) for one, other in zip(attacked.originals, seen(dp), strict=True))
        counts.append(recovered(decibels, guess))
        means.append(float(np.mean(decibels)))
    return SumOf(attack, sites, len(attacked.originals), counts[0], means[0], counts[1], means[1], SIGMA)
