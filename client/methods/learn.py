"""One round of training as the plan's methods have it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from client.methods.contract import Given, LocalMethod, Plain
from client.methods.ditto import train_own
from client.methods.local_affine import LocalAffine
from client.methods.scaffold import Scaffold
from client.patients import PatientSet
from client.privacy.plan import DpPlan
from client.training import TrainResult, train
from common.methods import control_part, model_part
from common.models import Network, set_arrays
from common.plan import Plan
from common.types import Arrays


@dataclass(frozen=True)
class Learned:
    """What a round came to."""

    result: TrainResult
    """Its `delta` is what may leave."""
    kept: Arrays = field(default_factory=dict)
    """What stays for the next round; empty where the plan's methods keep nothing."""


def method_for(plan: Plan, net: Network) -> LocalMethod:
    """The site's half of the methods that a plan names.

    Raises:
        PlanError: the network has nothing for the method to keep.
    """
    if plan.personalisation.method == "local-affine":
        return LocalAffine.of(net)
    if plan.federation.strategy == "scaffold":
        steps = plan.privacy.steps_per_round if plan.private else plan.training.local_steps
        return Scaffold(steps * plan.training.learning_rate)
    return Plain()


@dataclass(frozen=True)
class Round:
    """One round as it was asked for."""

    number: int
    """1-based."""
    sent: Arrays
    """The model, and what the server sent beside it."""
    kept: Arrays
    """What this site kept of the round before."""
    alone: bool = False
    """Without a federation there is nobody to differ from: local training as it is, and the model is one's own."""


def learn(net: Network, data: PatientSet, plan: Plan, dp: DpPlan | None, of: Round) -> Learned:
    """Train the shared model for one round, and the hospital's own where the plan has one beside it.

    Args:
        net: of the plan; what it holds is overwritten.
        data: this hospital's training patients.
        plan: the study plan.
        dp: the private mechanism, or None for a plan without privacy.
        of: the round.

    Raises:
        ConsiliumError: as `client.training.train`, and as `method_for`.
    """
    given = Given(model_part(of.sent), control_part(of.sent), of.kept)
    method = Plain() if of.alone else method_for(plan, net)
    begun = method.begin(given)
    set_arrays(net, begun.weights)
    result = train(net, data, plan, dp=dp, round=of.number, push=begun.push)
    left = method.end(given, result.delta)
    kept = dict(left.kept)
    if plan.personalisation.method == "ditto" and not of.alone:
        kept.update(train_own(net, data, plan, given, of.number))
    return Learned(replace(result, delta=dict(left.delta)), kept)
