"""Ditto: a model of the hospital's own, trained beside the shared one and held near it; it never leaves.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021, algorithm 1:

    v <- v - rate * (grad F(v) + lambda * (v - x))         x: the global model that the round began with

lambda is `personalisation.proximal_mu`: 0 is training alone, and the larger it is the nearer v stays to x. In each
round `personalisation.epochs` passes at `personalisation.learning_rate`, which times lambda must stay below 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from client.device import choose_device
from client.learner import Learner
from client.methods.contract import Given
from client.patients import PatientSet
from client.training import Descent, Recipe, run_epoch, seeded
from common.models import Network, get_arrays, set_arrays
from common.plan import Plan
from common.types import Arrays

_OWN: Final = "own."
_STREAM: Final = 0x6469747F
"""Sets this use of the plan's seed apart from the shared model's."""


def own_model(given: Given) -> Arrays:
    """The hospital's own model as it stands: the global one before its first round."""
    return {n: given.kept.get(_OWN + n, a) for n, a in given.model.items()}


def train_own(net: Network, data: PatientSet, plan: Plan, given: Given, round_: int) -> Arrays:
    """One round of the hospital's own model; what is kept of it.

    Args:
        net: of the plan; it is left holding the own model.
        data: the hospital's training patients.
        plan: with `personalisation.method = "ditto"`.
        given: the global model of this round, and what was kept.
        round_: 1-based; with the plan's seed it fixes every draw.
    """
    own = plan.personalisation
    recipe = replace(Recipe.of(plan), learning_rate=own.learning_rate, proximal_mu=own.proximal_mu)
    rng = np.random.default_rng([plan.training.seed, round_, _STREAM])
    set_arrays(net, given.model)
    with seeded(rng):
        learner = Learner.of(net, data, plan, choose_device(None))
        descent = Descent(learner.parameters, recipe)  # the pull is to what they hold now
        set_arrays(net, own_model(given))
        for _ in range(own.epochs):
            run_epoch(learner, descent, recipe, rng)
    return {_OWN + n: a for n, a in get_arrays(net).items()}
