"""SCAFFOLD, the server's half: averaging, and the mean of what the sites' own gradients are.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
ICML 2020, algorithm 1 with option II; the site's half is `client/methods/scaffold.py`. A site's new variate is

    c_k+ = c_k - c - delta_k / (steps * learning rate)

so the mean of the changes of all who came is -c - mean(delta) / (steps * learning rate): the server reads it off the
sum. Nothing but the update leaves a hospital, and the sum may be opened from under masks. It takes as many steps at
every site, which `common.methods` holds plans to. Sites weigh here what they weigh in the mean; in the paper all the
same. Of sites that did not come the variates stay:

    c <- c + share * (-c - mean(delta) / (steps * learning rate))       share: of the weight that could have come
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.arrays import RESOLUTION, Sum, blank, schema_of, slices, step
from common.methods import CONTROL
from common.types import Arrays
from server.strategies.contract import memory_of, model_of, together
from server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """FedAvg's sum and step, and the mean variate beside the model."""

    stride: float = 1.0
    """Steps a round times the sites' learning rate."""

    def begin(self, model: Arrays) -> Arrays:
        """The model and a variate of 0."""
        return together(model, {CONTROL + n: np.zeros(a.shape, np.float32) for n, a in model.items()})

    def sent(self, carried: Arrays) -> Arrays:
        """The model, and the mean variate as `control.<tensor>`."""
        return {**model_of(carried), **memory_of(carried)}

    def apply(self, model: Arrays, state: Sum, rate: float) -> Arrays:
        """FedAvg's step, and the variate that belongs to the next round."""
        here, control = model_of(model), memory_of(model)
        moved = step(here, state, rate)
        share = state.weight / state.total_weight
        following = blank(schema_of(here), state.folder)
        for name in here:
            old, counts, new = (
                of.reshape(-1) for of in (control[CONTROL + name], state.counts[name], following[name])
            )
            for part in slices(old, counts, new):
                c = old[part].astype(np.float64)
                mean = counts[part] / state.weight * RESOLUTION
                new[part] = c + share * (-c - mean / self.stride)
        return together(moved, {CONTROL + n: a for n, a in following.items()})
