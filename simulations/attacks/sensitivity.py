"""The direct test of clipping: each patient is left out in turn, and what the server gets may move by C at most.

It is asked of the sums that leave, of the real path with the noise set to 0, so that it holds however they were
made: a patient of many images, one whose images are all alike, one of enormous pixels. A network that
mixes the images of a batch, or keeps statistics of them, shows itself here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from client.patients import PatientSet
from client.privacy.plan import DpPlan
from common.errors import PrivacyRefused
from common.models import Network, get_arrays
from simulations.attacks.images import Pictures
from simulations.attacks.records import Check
from simulations.attacks.target import RATE, Target, Vector, plan_of, step_sum

_CLIP: Final = 0.02
"""Small, so that every patient's gradient is longer than C."""
_ROUNDING: Final = 2e-3
"""Share of C: weights are stored in float32, and a delta is a difference of two of them."""


@dataclass(frozen=True)
class Cohort:
    """Patients of 1, 2, 3, ... images; the last one's are one image over and over, and white beyond reason."""

    data: PatientSet
    images_per_patient: int

    @classmethod
    def of(cls, pictures: Pictures, n_patients: int, images_per_patient: int) -> Cohort:
        """From pictures, as many of them as are needed."""
        counts = [1 + number % images_per_patient for number in range(n_patients - 1)]
        owner = np.repeat(np.arange(n_patients), [*counts, 3 * images_per_patient]).astype(np.int64)
        chosen = pictures[np.arange(len(owner)) % len(pictures)].copy()
        chosen[owner == n_patients - 1] = 30.0 * pictures[0]
        labels = (owner % 2).astype(np.float32).reshape(-1, 1)
        names = [f"patient-{number}" for number in range(n_patients)]
        return cls(PatientSet(chosen, np.arange(len(owner)), labels, owner, names, names), images_per_patient)


def clipping(target: Target, pictures: Pictures, n_patients: int = 6) -> tuple[Check, ...]:
    """How far one patient moves the sum, over C, for one and for several images of each; and the buffers.

    Args:
        target: the code under audit.
        pictures: [n, side, side].
        n_patients: each of them is left out once.
    """
    name = "clipping"
    found = []
    for most in (1, 4):
        cohort = Cohort.of(pictures, n_patients, most)
        claim = f"no patient moves the sum by more than C; {most} image(s) of each"
        try:
            moved = _largest_move(target, cohort)
        except PrivacyRefused as refusal:
            return (Check(name, claim, 0.0, None, 1.0, passed=False, note=f"refused: {refusal.code}"),)
        passed = moved <= 1 + _ROUNDING
        found.append(Check(f"{name}, K = {most}", claim, moved, None, 1 + _ROUNDING, passed=passed))
    return (*found, _buffers(target, pictures))


def _largest_move(target: Target, cohort: Cohort) -> float:
    data, count = cohort.data, cohort.data.n_patients
    whole = _sum_of(target, data, cohort.images_per_patient)
    moves = []
    for patient in range(count):
        rest = data.subset([other for other in range(count) if other != patient])
        moves.append(np.linalg.norm(whole - _sum_of(target, rest, cohort.images_per_patient)))
    return float(max(moves)) / _CLIP


def _sum_of(target: Target, data: PatientSet, most: int) -> Vector:
    """One noiseless step; where a patient has more images than K, chance chooses, and all are alike."""
    dp = DpPlan(1.0, _CLIP, 0.0, most, 1.0, 1, 1e-5, 1)
    side = data.images.shape[1]
    # A large rate: the change of a weight is then large beside its rounding.
    plan = plan_of(side, training={"learning_rate": RATE * 2**12})
    return step_sum(target, target.network(side), data, plan, dp)


def _buffers(target: Target, pictures: Pictures) -> Check:
    """Nothing but trainable weights may change, and nothing but they may leave."""
    side = pictures.shape[1]
    net = target.network(side)
    before = _unlearned(net)
    cohort = Cohort.of(pictures, 6, 2)
    plan = plan_of(side)
    sent = step_sum(target, net, cohort.data, plan, DpPlan(1.0, 1.0, 1.0, 2, 6.0, 2, 1e-5, 1))
    after = _unlearned(net)
    changed = sum(not torch.equal(before[name], after[name]) for name in before)
    extra = len(sent) - sum(array.size for array in get_arrays(net).values())
    claim = "no buffer and no frozen weight changes while patients are trained on, and none leaves"
    return Check("buffers", claim, float(changed + extra), None, 0.0, passed=changed + extra == 0)


def _unlearned(net: Network) -> dict[str, torch.Tensor]:
    learning = net.trainable()
    return {
        name: tensor.detach().clone() for name, tensor in net.state_dict().items() if name not in learning
    }
