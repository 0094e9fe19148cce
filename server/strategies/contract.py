"""What every federated algorithm is here: frozen state, `begin`, `init`, `fold`, `apply`.

Between rounds an algorithm is nothing but tensors, the carried ones: the model's, and after them what the algorithm
remembers, under names that begin with `memory.`. `begin` makes them from the first model and `apply` makes those of
the next round, so that they are journaled with the model in one file and a run that was killed goes on with both.
`sent` says which of them the sites are given with the model.

Within a round, `init` makes its state, `fold` takes one admitted update in and forgets it. The server so
holds no more than one update in memory at a time, and the result does not depend on the order in which they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from common.arrays import Schema
from common.types import Arrays

State = Any
"""An algorithm's own frozen state; it has a `weight`, and nobody else looks into it."""
MEMORY: Final = "memory."
"""Begins the name of every carried tensor that is not the model's."""


@dataclass(frozen=True)
class Said:
    """What came with an update, of which some algorithms make use."""

    site: str = ""
    loss: float | None = None
    """The site's training loss under the incoming model, in nats, where the method asks for it."""


SILENT: Final = Said()


class Strategy(Protocol):
    """An algorithm's server side. Deltas are `trained - incoming`, float32, by tensor name."""

    def begin(self, model: Arrays) -> Arrays:
        """The carried tensors before the first round: the model's, in order, and the memory."""

    def sent(self, carried: Arrays) -> Arrays:
        """What the sites are given to train from: the model's tensors, in order, and what goes with them."""

    def init(self, schema: Schema, total_weight: int, folder: Path | None = None) -> State:
        """The state before the first update of a round; `total_weight` bounds what may be folded.

        With a `folder` what is large lies there in a mapped file; a state that was folded into is then used up.
        """

    def fold(self, state: State, delta: Arrays, weight: int, said: Said = SILENT) -> State:
        """The state with one more admitted update in it."""

    def apply(self, model: Arrays, state: State, rate: float) -> Arrays:
        """The carried tensors of the next round, float32; `model` is those of this one, `rate` the server's."""


def model_of(carried: Arrays) -> Arrays:
    """The model's tensors among the carried ones, in order."""
    return _those(carried, memory=False)


def memory_of(carried: Arrays) -> Arrays:
    """What an algorithm remembers, by its own names, without `memory.`."""
    return {name.removeprefix(MEMORY): of for name, of in _those(carried, memory=True).items()}


def together(model: Arrays, memory: Arrays) -> Arrays:
    """Model and memory as carried tensors."""
    return {**model, **{MEMORY + name: of for name, of in memory.items()}}


def _those(carried: Arrays, *, memory: bool) -> Arrays:
    if not memory and not any(name.startswith(MEMORY) for name in carried):
        return carried  # as it lies: perhaps mapped, looked at one tensor at a time
    return {name: carried[name] for name in carried if name.startswith(MEMORY) == memory}
