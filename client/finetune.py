"""Personalisation: the global model, trained further on one hospital's patients, for that hospital.

The result never leaves. First, do no harm: an epoch's weights are kept only when they lower the loss
of the validation patients without lowering their AUROC; otherwise the global model stays.
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
class Trial:
    """The validation patients under one epoch's weights."""

    loss: float
    """Nats, mean over patients."""
    auroc: float | None
    """None where there is one class only."""

    def better_than(self, other: Trial) -> bool:
        """Lower loss, and no lower AUROC where there is one."""
        return self.loss < other.loss and (self.auroc or 0.0) >= (other.auroc or 0.0)


@dataclass(frozen=True)
class Personalised:
    """What fine-tuning did; stays in the hospital."""

    epoch: int
    """Whose weights were kept, 1-based; 0: the global model's."""
    trials: tuple[Trial, ...]
    """Of the global model first, then of each epoch."""

    @property
    def improved(self) -> bool:
        """Whether the hospital now has weights of its own."""
        return self.epoch > 0


def finetune(
    net: Network,
    train: PatientSet,
    validation: PatientSet,
    plan: Plan,
    device: str | None = None,
) -> Personalised:
    """Train `net` in place on `train` from the global weights it holds; keep the best epoch's.

    Deterministic, given the plan. With no validation patients the global model stays.

    Raises:
        DataError: `no-patients` when there is nobody to train on.
    """
    best = get_arrays(net)
    if not validation.n_images:
        return Personalised(0, ())
    trials, kept = [_trial(predict(net, validation, device))], 0
    rng = np.random.default_rng([plan.training.seed, _STREAM])
    recipe = _recipe(plan)
    with seeded(rng):
        learner = Learner.of(net, train, plan, choose_device(device))
        descent = Descent(learner.parameters, recipe)
        for epoch in range(1, plan.personalisation.epochs + 1):
            run_epoch(learner, descent, recipe, rng)
            trials.append(_trial(predict(net, validation, device)))
            if trials[-1].better_than(trials[kept]):
                best, kept = get_arrays(net), epoch
    set_arrays(net, best)
    return Personalised(kept, tuple(trials))


_STREAM = 0x66696E65
"""Sets this use of the plan's seed apart from every round's."""


def _recipe(plan: Plan) -> Recipe:
    own = plan.personalisation
    return replace(Recipe.of(plan), learning_rate=own.learning_rate, proximal_mu=own.proximal_mu)


def _trial(scores: Scores) -> Trial:
    loss = log_loss(scores)
    try:
        area = metrics.auroc(scores.scores, scores.labels, scores.patient_of).value
    except DataError:
        return Trial(loss, None)
    return Trial(loss if np.isfinite(loss) else float("inf"), area)
