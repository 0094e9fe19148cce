"""What a private step is made of. Only a privacy audit puts anything else here, to see that it would be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import nn

from client.privacy.clipping import Loss
from client.privacy.engine import Gradients, PatientGradients
from client.privacy.noise import NoiseSource


@dataclass(frozen=True)
class Parts:
    """Who clips, and where chance comes from."""

    engine: Callable[[nn.Module, Loss], Gradients] = PatientGradients
    noise: Callable[[], NoiseSource] = NoiseSource


TRUSTED: Final = Parts()
"""Those of every hospital."""
