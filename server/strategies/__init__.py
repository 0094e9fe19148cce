"""Federated optimisation, one file per algorithm: state in, state out (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.plan import Plan
from server.strategies.adaptive import Adaptive
from server.strategies.agnostic import Agnostic
from server.strategies.contract import Said, State, Strategy, model_of
from server.strategies.fedavg import FedAvg
from server.strategies.fedprox import FedProx
from server.strategies.q_ffl import QFFL
from server.strategies.robust import RULES, Robust
from server.strategies.scaffold import Scaffold


def _adam(plan: Plan) -> Strategy:
    return Adaptive("adam", plan.method.beta1, plan.method.beta2, plan.method.tau)


def _yogi(plan: Plan) -> Strategy:
    return Adaptive("yogi", plan.method.beta1, plan.method.beta2, plan.method.tau)


def _scaffold(plan: Plan) -> Strategy:
    steps = plan.privacy.steps_per_round if plan.private else plan.training.local_steps
    return Scaffold(steps * plan.training.learning_rate)


STRATEGIES: Final[dict[str, Callable[[Plan], Strategy]]] = {
    "fedavg": lambda _plan: FedAvg(),
    "fedprox": lambda _plan: FedProx(),
    "fedadam": _adam,
    "fedyogi": _yogi,
    "scaffold": _scaffold,
    "q-ffl": lambda plan: QFFL(plan.method.fairness_q, plan.training.learning_rate),
    "agnostic": lambda plan: Agnostic(plan.method.group_step),
}
"""By the name a plan gives it."""


def strategy_for(plan: Plan) -> Strategy:
    """The algorithm a study plan names, with its numbers, or the rule that takes the place of its mean."""
    if plan.federation.robust in RULES:
        return Robust(plan.federation.robust, plan.federation.tolerated)
    return STRATEGIES[plan.federation.strategy](plan)


__all__ = ["STRATEGIES", "FedAvg", "FedProx", "Said", "State", "Strategy", "model_of", "strategy_for"]
