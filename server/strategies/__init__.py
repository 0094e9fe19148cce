"""Federated optimisation, one file per algorithm: state in, state out."""

from __future__ import annotations

from typing import Final

from common.plan_federation import Federation
from server.strategies.contract import State, Strategy
from server.strategies.fedavg import FedAvg
from server.strategies.fedprox import FedProx
from server.strategies.robust import RULES, Robust

STRATEGIES: Final[dict[str, Strategy]] = {"fedavg": FedAvg(), "fedprox": FedProx()}


def strategy_for(federation: Federation) -> Strategy:
    """The algorithm a study plan names, or the rule that takes the place of its mean."""
    if federation.robust in RULES:
        return Robust(federation.robust, federation.tolerated)
    return STRATEGIES[federation.strategy]


__all__ = ["STRATEGIES", "FedAvg", "FedProx", "State", "Strategy", "strategy_for"]
