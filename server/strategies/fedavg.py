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


@dataclass(frozen=True)
class FedAvg:
    """The weighted mean of the sites' steps, summed exactly."""

    def init(self, schema: Schema, total_weight: int, folder: Path | None = None) -> Sum:
        """An empty sum over the model's tensors, in a file of `folder` where one is given."""
        return arrays.zero(schema, total_weight, folder)

    def fold(self, state: Sum, delta: Arrays, weight: int) -> Sum:
        """The sum with `weight * delta` added."""
        return arrays.add(state, delta, weight)

    def apply(self, model: Arrays, state: Sum, rate: float) -> Arrays:
        """One step of `rate` along the weighted mean."""
        return arrays.step(model, state, rate)
