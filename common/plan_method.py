"""`[method]` of a study plan: the numbers of the method that `federation.strategy` names.

Each stands for itself at its default, so that a plan without the section means what its paper proposes or plain
averaging. What goes with what is judged across sections (`common.methods`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from common.plan_fields import STRICT, NotNegative, Positive

_Memory = Annotated[float, Field(strict=True, ge=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class MethodSettings:
    """Numbers of FedAdam, FedYogi, q-FFL and agnostic averaging; the others have theirs in `[federation]`."""

    beta1: _Memory = 0.9
    """FedAdam, FedYogi: how much of the mean update's first moment is remembered (Reddi et al. 2021, section 5)."""
    beta2: _Memory = 0.99
    """The same of its second moment."""
    tau: Positive = 1e-3
    """The least size a coordinate's update is taken to have: adaptivity; the second moment begins at its square."""
    fairness_q: NotNegative = 0.0
    """q-FFL: how much more the sites with a larger loss count; 0: plain averaging."""
    group_step: NotNegative = 0.0
    """Agnostic: how fast weight moves to the sites with a larger loss; 0: plain averaging."""
