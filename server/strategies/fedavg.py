"""Federated averaging: each site trains, the server averages by weight.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017, algorithm 1; the server's step with a rate of its own as in
Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 1 with plain SGD.

    model <- model + rate * sum_k(weight_k * delta_k) / sum_k(weight_k)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common import arrays
from common.arrays import Schema, Sum
from common.types import Arrays
from server.strategies.contract import SILENT, Said, model_of


@dataclass(frozen=True)
class FedAvg:
    """The weighted mean of the sites' steps, summed exactly."""

    def begin(self, model: Arrays) -> Arrays:
        """The model, and nothing to remember."""
        return model

    def sent(self, carried: Arrays) -> Arrays:
        """The model alone."""
        return model_of(carried)

    def init(self, schema: Schema, total_weight: int, folder: Path | None = None) -> Sum:
        """An empty sum over the model's tensors, in a file of `folder` where one is given."""
        return arrays.zero(schema, total_weight, folder)

    def fold(self, state: Sum, delta: Arrays, weight: int, said: Said = SILENT) -> Sum:
        """The sum with `weight * delta` added."""
        del said
        return arrays.add(state, delta, weight)

    def apply(self, model: Arrays, state: Sum, rate: float) -> Arrays:
        """One step of `rate` along the weighted mean."""
        return arrays.step(model, state, rate)
