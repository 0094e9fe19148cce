"""What is audited: the parts of the real path, and one way to make it train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from client.patients import PatientSet
from client.privacy.parts import TRUSTED, Parts
from client.privacy.plan import DpPlan
from client.service import SiteService
from client.site import Site
from client.training import train
from common.models import Network, build
from common.plan import Model, Plan, plan_from_dict

Vector = npt.NDArray[np.float64]
RATE: Final = 0.125
"""Learning rate of every audited step: a power of two, so that dividing by it rounds nothing."""


def small_cnn(side: int) -> Network:
    """The network of the registry that most studies without a GPU train."""
    return build(Model("small-cnn"), 1, (side, side))


@dataclass(frozen=True)
class Target:
    """The code under audit; its defaults are what every hospital runs."""

    parts: Parts = TRUSTED
    network: Callable[[int], Network] = small_cnn
    """From the side of an image."""
    service: Callable[[Site], SiteService] = SiteService


def plan_of(side: int, **sections: dict[str, object]) -> Plan:
    """A plan whose steps are plain gradient steps, so that a delta is a sum of gradients."""
    raw: dict[str, dict[str, object]] = {
        "study": {"name": "audit", "question": "What does an update tell?"},
        "task": {"kind": "binary", "classes": ["finding"]},
        "input": {"modalities": ["DX", "CR"], "shape": [side, side]},
        "labels": {"source": "synthetic", "provenance": "made for the audit"},
        "model": {"name": "small-cnn"},
        "training": {"momentum": 0.0, "learning_rate": RATE, "batch_patients": 4096},
    }
    for name, section in sections.items():
        raw[name] = {**raw.get(name, {}), **section}
    return plan_from_dict(raw)


def mechanism(sigma: float, patients: float, steps: int = 1, rate: float = 1.0, clip: float = 1.0) -> DpPlan:
    """A private mechanism of so much noise; `patients` is the divisor at rate 1."""
    return DpPlan(rate, clip, sigma, 4, rate * patients, steps, 1e-5, 1)


def step_sum(
    target: Target, net: Network, data: PatientSet, plan: Plan, dp: DpPlan | None, *, round_: int = 1
) -> Vector:
    """What one round lets the server compute: the sum over steps of clipped gradients with their noise, flat.

    Without `dp` it is the sum of mean gradients. Momentum must be 0, so that the delta is nothing else.
    """
    result = train(net, data, plan, dp=dp, round=round_, device="cpu", parts=target.parts)
    flat = np.concatenate([change.ravel() for change in result.delta.values()]).astype(np.float64)
    return flat * (-(dp.expected_batch if dp else 1.0) / plan.training.learning_rate)
