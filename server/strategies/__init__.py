"""Federated optimisation, one file per algorithm: state in, state out."""

from __future__ import annotations

from typing import Final, Literal

from server.strategies.contract import Strategy
from server.strategies.fedavg import FedAvg
from server.strategies.fedprox import FedProx

STRATEGIES: Final[dict[str, Strategy]] = {"fedavg": FedAvg(), "fedprox": FedProx()}


def strategy_for(name: Literal["fedavg", "fedprox"]) -> Strategy:
    """The algorithm a study plan names."""
    return STRATEGIES[name]


__all__ = ["STRATEGIES", "FedAvg", "FedProx", "Strategy", "strategy_for"]
