"""Personalisation: the global model, trained further on one hospital's patients, for that hospital.

The result never leaves. First, do no harm: the global model stays where the fine-tuned one is worse on
the validation patients beyond what chance explains (paired interval of the AUROC; the loss where there
is one class only). No epoch is picked by validation figures: a hospital has a few dozen validation patients,
and on the three-site chest X-rays picking the best of them cost nih_ap 0.03 AUROC against the last epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from client.device import choose_device
from client.evaluation import Scores, log_loss, predict
from client.learner import Learner
from client.patients import PatientSet
from client.training import Descent, Recipe, run_epoch, seeded
from common.errors import DataError
from common.models import Network, get_arrays, metrics, set_arrays
from common.plan import Plan


@dataclass(frozen=True)
class Personalised:
    """What fine-tuning did; stays in the hospital."""

    kept: bool
    """Whether the hospital now has weights of its own."""
    losses: tuple[float, ...]
    """Of the validation patients, in nats: under the global model first, then after each epoch."""


def finetune(
    net: Network,
    train: PatientSet,
    validation: PatientSet,
    plan: Plan,
    device: str | None = None,
) -> Personalised:
    """Train `net` in place on `train` from the global weights it holds, for as long as the plan says.

    Deterministic, given the plan. With no validation patients the global model stays.

    Raises:
        DataError: `no-patients` when there is nobody to train on.
    """
    if not validation.n_images:
        return Personalised(kept=False, losses=())
    shared, before = get_arrays(net), predict(net, validation, device)
    losses, after = [log_loss(before)], before
    rng = np.random.default_rng([plan.training.seed, _STREAM])
    recipe = _recipe(plan)
    with seeded(rng):
        learner = Learner.of(net, train, plan, choose_device(device))
        descent = Descent(learner.parameters, recipe)
        for _ in range(plan.personalisation.epochs):
            run_epoch(learner, descent, recipe, rng)
            after = predict(net, validation, device)
            losses.append(log_loss(after))
    kept = not harmed(after, before, plan.evaluation.confidence)
    if not kept:
        set_arrays(net, shared)
    return Personalised(kept, tuple(losses))


def harmed(after: Scores, before: Scores, confidence: float) -> bool:
    """Whether validation patients are served worse than before, beyond chance."""
    if not np.isfinite(after.scores).all():
        return True
    try:
        change = metrics.auroc_difference(
            after.scores, before.scores, after.labels, after.patient_of, confidence
        )
    except DataError:
        return log_loss(after) >= log_loss(before)
    return change.high < 0


_STREAM = 0x66696E65
"""Sets this use of the plan's seed apart from every round's."""


def _recipe(plan: Plan) -> Recipe:
    own = plan.personalisation
    return replace(Recipe.of(plan), learning_rate=own.learning_rate, proximal_mu=own.proximal_mu)
