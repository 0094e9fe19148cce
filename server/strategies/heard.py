"""Updates of one round held until it closes, each with its site and its loss: for rules that weight by losses.

A memory-mapped update stays on disk and is worked through slice by slice, so that memory holds one slice of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.arrays import Schema, blank, digest, schema_of, slices
from common.errors import FederationError, WrongOrder
from common.types import Arrays
from server.strategies.contract import SILENT, Said, model_of


@dataclass(frozen=True)
class One:
    """One site's update."""

    delta: Arrays
    weight: int
    site: str
    loss: float


@dataclass(frozen=True)
class Heard:
    """The updates of one round so far."""

    schema: Schema
    updates: tuple[One, ...] = ()
    weight: int = 0
    folder: Path | None = None

    def closed(self) -> tuple[One, ...]:
        """The updates in an order that does not follow from when they came.

        Raises:
            WrongOrder: there are none.
        """
        if not self.updates:
            raise WrongOrder("round", "no update was added", "Check the quorum before the step")
        return tuple(sorted(self.updates, key=lambda one: (one.site, one.loss, digest(one.delta))))


@dataclass(frozen=True)
class ByLoss:
    """What such rules have in common: they remember nothing unless they say so, and hear everybody first."""

    def begin(self, model: Arrays) -> Arrays:
        """The model, and nothing to remember."""
        return model

    def sent(self, carried: Arrays) -> Arrays:
        """The model alone."""
        return model_of(carried)

    def init(self, schema: Schema, total_weight: int, folder: Path | None = None) -> Heard:
        """No update yet; updates lie where they were handed over from."""
        del total_weight
        return Heard(schema, folder=folder)

    def fold(self, state: Heard, delta: Arrays, weight: int, said: Said = SILENT) -> Heard:
        """The state with one more admitted update.

        Raises:
            WrongOrder: the caller did not check its tensors before.
            FederationError: `objective`: its site did not say its loss.
        """
        if schema_of(delta) != dict(state.schema):
            raise WrongOrder("update", "its tensors are not those of the model", "Admit the update first")
        if said.loss is None:
            raise FederationError(
                f"site {said.site}",
                "it did not say its loss, by which this method weights",
                "Let it leave: `progress` in policy.metrics",
                code="objective",
            )
        one = One(delta, weight, said.site, said.loss)
        return replace(state, updates=(*state.updates, one), weight=state.weight + weight)


def moved(model: Arrays, updates: Sequence[One], factors: Sequence[float], folder: Path | None) -> Arrays:
    """`model + sum(factor * delta)`, in float64 and rounded once, tensor by tensor; on disk where a folder is given."""
    new = blank(schema_of(model), folder)
    for name, array in model.items():
        flats = [array.reshape(-1), new[name].reshape(-1), *(one.delta[name].reshape(-1) for one in updates)]
        for part in slices(*flats):
            value = flats[0][part].astype(np.float64)
            for factor, delta in zip(factors, flats[2:], strict=True):
                value += factor * delta[part].astype(np.float64)
            flats[1][part] = value
    return new
