"""q-FFL: sites whose loss is larger count more, the more so the larger q is.

Li, Sanjabi, Beirami, Smith, "Fair Resource Allocation in Federated Learning", ICLR 2020, algorithm 2 (q-FedAvg), for

    minimise  sum_k p_k / (q + 1) * F_k(w)^(q + 1)

    Delta_k = F_k^q * L * (-delta_k)
    h_k     = q * F_k^(q - 1) * ||L * delta_k||^2 + L * F_k^q
    model  <- model - rate * sum_k(p_k Delta_k) / sum_k(p_k h_k)

F_k is the loss of site k under the model that the round began with, L the reciprocal of the sites' learning rate, p_k
the site's weight. At q = 0 this is federated averaging. A site that lies about its loss gains weight: the loss is
bounded at the door (`server.admission`), and the update itself by `federation.robust`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.arrays import norm
from common.types import Arrays
from server.strategies.contract import model_of
from server.strategies.heard import ByLoss, Heard, moved

_LEAST: Final = 1e-10
"""A loss of exactly 0 has no power below 1."""


@dataclass(frozen=True)
class QFFL(ByLoss):
    """q-FedAvg's step."""

    q: float = 0.0
    learning_rate: float = 1.0
    """The sites' own, whose reciprocal stands for the loss's smoothness L."""

    def apply(self, model: Arrays, state: Heard, rate: float) -> Arrays:
        """One step; see the formula above."""
        updates = state.closed()
        smooth = 1 / self.learning_rate
        losses = [max(one.loss, _LEAST) for one in updates]
        slopes = [one.weight * loss**self.q * smooth for one, loss in zip(updates, losses, strict=True)]
        curve = sum(
            one.weight * self.q * loss ** (self.q - 1) * (smooth * norm(one.delta)) ** 2
            for one, loss in zip(updates, losses, strict=True)
        )
        whole = curve + sum(slopes)
        return moved(model_of(model), updates, [rate * slope / whole for slope in slopes], state.folder)
