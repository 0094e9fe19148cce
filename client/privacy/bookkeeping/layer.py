"""What every layer offers: squared norms of the patients' gradients, and the sum of them by weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from client.privacy.bookkeeping.spans import Spans


@dataclass(frozen=True)
class Seen:
    """One layer in one step."""

    inputs: Tensor
    """[images, ...] what went in, detached."""
    outputs: Tensor
    """[images, ...] gradient of the batch's loss by what came out."""
    spans: Spans
    statistics: tuple[Tensor, Tensor] | None = None
    """Of group normalisation: mean and inverse deviation of each group, [images, groups]."""

    def first(self, patients: int) -> Seen:
        """The same layer for the first few patients."""
        slots = self.spans.slots
        images = int((slots < patients).sum())
        statistics = self.statistics and (self.statistics[0][:images], self.statistics[1][:images])
        return Seen(self.inputs[:images], self.outputs[:images], Spans(slots[:images]), statistics)

    def scaled(self, factors: Tensor) -> Tensor:
        """The gradient of the outputs, each image multiplied by its patient's factor."""
        each = factors.to(self.outputs.dtype)[self.spans.slots]
        return self.outputs * each.reshape(-1, *[1] * (self.outputs.dim() - 1))


Totals = dict[Tensor, Tensor]
"""Of each trainable parameter, the sum over patients of factor times gradient, in the parameter's shape."""


class Way(ABC):
    """One exact way to the norms and sums of a layer in one step; made for it and thrown away."""

    @abstractmethod
    def squares(self) -> Tensor:
        """Squared norm of each patient's gradient of this layer's trainable parameters; float64 [patients]."""

    @abstractmethod
    def totals(self, factors: Tensor) -> Totals:
        """The weighted sum.

        Args:
            factors: float64 [patients], finite.
        """


class Kept(Way):
    """Every patient's gradient is made and kept: for layers whose parameters are few."""

    def __init__(self, gradients: dict[Tensor, Tensor]) -> None:
        """Take the gradients, [patients, *shape] for each parameter."""
        self._gradients = {parameter: each.flatten(1) for parameter, each in gradients.items()}

    def squares(self) -> Tensor:
        """See `Way`."""
        norms = [
            torch.linalg.vector_norm(each, dim=1, dtype=torch.float64) for each in self._gradients.values()
        ]
        return torch.stack(norms).square().sum(dim=0)

    def totals(self, factors: Tensor) -> Totals:
        """See `Way`."""
        return {
            parameter: (factors.to(each.dtype) @ each).reshape(parameter.shape)
            for parameter, each in self._gradients.items()
        }


class Joined(Way):
    """Two ways side by side, such as a weight's and a bias's."""

    def __init__(self, *ways: Way) -> None:
        """Take the parts; none of them shares a parameter with another."""
        self._ways = ways

    def squares(self) -> Tensor:
        """See `Way`."""
        return torch.stack([way.squares() for way in self._ways]).sum(dim=0)

    def totals(self, factors: Tensor) -> Totals:
        """See `Way`."""
        return {parameter: total for way in self._ways for parameter, total in way.totals(factors).items()}


def squared(gram_a: Tensor, gram_b: Tensor) -> Tensor:
    """Sum of the product of two Gram matrices, [patients, t, t] each; float64 [patients], never negative."""
    found = torch.bmm(gram_a.flatten(1)[:, None, :], gram_b.flatten(1)[:, :, None]).reshape(-1)
    return found.to(torch.float64).clamp(min=0)
