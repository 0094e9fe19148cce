"""Where a step's sum is gathered: one flat tensor, a place in it for each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Room:
    """The flat sum of all parameters, written one parameter at a time, so that no second copy of it exists.

    Args:
        parameters: in the order of the sum.
        total: [numbers], of any precision; a new float64 tensor when None.
        adding: to what it holds already; otherwise it is overwritten.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], total: Tensor | None = None, *, adding: bool = False
    ) -> None:
        self._places: dict[Tensor, slice] = {}
        end = 0
        for parameter in parameters:
            self._places[parameter] = slice(end, end + parameter.numel())
            end += parameter.numel()
        self.adding = adding
        self.total = (
            torch.zeros(end, dtype=torch.float64, device=parameters[0].device) if total is None else total
        )

    def put(self, totals: Mapping[Tensor, Tensor]) -> None:
        """Write or add the sums of some parameters; each parameter once."""
        for parameter, found in totals.items():
            place = self.total[self._places[parameter]]
            if self.adding:
                place.add_(found.reshape(-1))
            else:
                place.copy_(found.reshape(-1))

    def nothing(self) -> Tensor:
        """The sum over nobody."""
        return self.total if self.adding else self.total.zero_()
