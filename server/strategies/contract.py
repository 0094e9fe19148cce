"""What every federated algorithm is here: frozen state, `init`, `fold`, `apply`.

`init` makes the state of one round, `fold` takes one admitted update in and forgets it, `apply`
gives the next global model. The server so never holds more than one update at a time, and the
result does not depend on the order in which they came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from common.arrays import Schema
from common.types import Arrays

State = Any
"""An algorithm's own frozen state; it has a `weight`, and nobody else looks into it."""


class Strategy(Protocol):
    """An algorithm's server side. Deltas are `trained - incoming`, float32, by tensor name."""

    def init(self, schema: Schema, total_weight: int, folder: Path | None = None) -> State:
        """The state before the first update of a round; `total_weight` bounds what may be folded.

        With a `folder` what is large lies there in a mapped file; a state that was folded into is then used up.
        """

    def fold(self, state: State, delta: Arrays, weight: int) -> State:
        """The state with one more admitted update in it."""

    def apply(self, model: Arrays, state: State, rate: float) -> Arrays:
        """The next global model, float32; `rate` is the server's learning rate."""
