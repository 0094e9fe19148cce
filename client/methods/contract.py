"""What a method may change in one round at a site: where training begins, what is added to each gradient, what is kept.

State in, state out: `begin` and `end` look at tensors alone, never at a patient, and change nothing. What they
return is what was noised, moved about; so a method that is one of these costs no privacy beyond the round's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.types import Arrays

Tensors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Given:
    """What a round begins from."""

    model: Arrays
    """The global model's trainable tensors."""
    control: Arrays = field(default_factory=dict)
    """What the server's half sent beside it, by the model's names."""
    kept: Arrays = field(default_factory=dict)
    """What this site kept of the rounds before, by names of the method's own; empty at first."""


@dataclass(frozen=True)
class Begun:
    """How training begins."""

    weights: Arrays
    """What the network holds before the first step."""
    push: Arrays = field(default_factory=dict)
    """Added to every gradient, after clip and noise; empty: nothing."""


@dataclass(frozen=True)
class Left:
    """What a round leaves behind."""

    delta: Tensors
    """What may leave the hospital: `trained - model`, for every tensor of the model."""
    kept: Tensors = field(default_factory=dict)
    """What stays, for the next round."""


class LocalMethod(Protocol):
    """A method's half at the site."""

    def begin(self, given: Given) -> Begun:
        """How training begins."""

    def end(self, given: Given, change: Tensors) -> Left:
        """What is left when training changed the beginning weights by `change`."""


@dataclass(frozen=True)
class Plain:
    """Local training as it is: of FedAvg, and of every method whose work is the server's or the step's own."""

    def begin(self, given: Given) -> Begun:
        """From the global model."""
        return Begun(given.model)

    def end(self, given: Given, change: Tensors) -> Left:
        """The change."""
        del given
        return Left(change)
