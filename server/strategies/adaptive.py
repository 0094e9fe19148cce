"""FedAdam and FedYogi: the mean update is taken for a gradient, and the server follows it with a memory.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021,
algorithm 2, per coordinate, D the weighted mean of the sites' steps:

    m <- beta1 m + (1 - beta1) D
    FedAdam   v <- beta2 v + (1 - beta2) D^2
    FedYogi   v <- v - (1 - beta2) D^2 sign(v - D^2)
    model <- model + rate * m / (sqrt(v) + tau)

m begins at 0 and v at tau^2. There is no correction for the beginning, as in the paper, so that the first steps are
short. A coordinate moves by about `rate` whatever the sites' own steps are; 0.01 to 0.1 where plain averaging has 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from common.arrays import RESOLUTION, Sum, blank, schema_of, slices
from common.errors import WrongOrder
from common.types import Arrays
from server.strategies.contract import memory_of, model_of, together
from server.strategies.fedavg import FedAvg

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Adaptive(FedAvg):
    """FedAvg's sum with Adam's or Yogi's step."""

    rule: Literal["adam", "yogi"] = "adam"
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def begin(self, model: Arrays) -> Arrays:
        """The model with a first moment of 0 and a second of tau squared, for each of its values."""
        first = {f"first.{n}": np.zeros(a.shape, np.float32) for n, a in model.items()}
        second = {f"second.{n}": np.full(a.shape, self.tau**2, np.float32) for n, a in model.items()}
        return together(model, {**first, **second})

    def apply(self, model: Arrays, state: Sum, rate: float) -> Arrays:
        """One step; sums on disk give tensors on disk.

        Raises:
            WrongOrder: when nothing was folded.
        """
        if state.weight == 0:
            raise WrongOrder("sum", "no update was added", "Check the quorum before the step")
        here, memory = model_of(model), memory_of(model)
        schema = schema_of(here)
        moved, first, second = (blank(schema, state.folder) for _ in range(3))
        for name in here:
            old = (here[name], memory[f"first.{name}"], memory[f"second.{name}"], state.counts[name])
            new = (moved[name], first[name], second[name])
            flats = [of.reshape(-1) for of in (*old, *new)]
            for part in slices(*flats):
                w, m, v, counts = (flat[part].astype(np.float64) for flat in flats[:4])
                mean = counts / state.weight * RESOLUTION
                m = self.beta1 * m + (1 - self.beta1) * mean
                v = self._second(v, mean)
                for flat, value in zip(
                    flats[4:], (w + rate * m / (np.sqrt(v) + self.tau), m, v), strict=True
                ):
                    flat[part] = value
        kept = {f"first.{n}": a for n, a in first.items()} | {f"second.{n}": a for n, a in second.items()}
        return together(moved, kept)

    def _second(self, v: Wide, mean: Wide) -> Wide:
        square = np.square(mean)
        if self.rule == "adam":
            return self.beta2 * v + (1 - self.beta2) * square
        return np.asarray(v - (1 - self.beta2) * square * np.sign(v - square))
