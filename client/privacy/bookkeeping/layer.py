"""What every layer offers: squared norms of the patients' gradients, and the sum of them by weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from client.privacy.bookkeeping.spans import Spans

_BLOCK: Final = 1024
"""Squares added in the precision of the numbers themselves."""


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

    def __init__(self, gradients: dict[Tensor, list[Tensor]]) -> None:
        """Take of each parameter the gradients of consecutive patients, [some patients, *shape] each."""
        self._gradients = {
            parameter: [part.flatten(1) for part in parts] for parameter, parts in gradients.items()
        }

    def squares(self) -> Tensor:
        """See `Way`."""
        each = [torch.cat([squares(part) for part in parts]) for parts in self._gradients.values()]
        return torch.stack(each).sum(dim=0)

    def totals(self, factors: Tensor) -> Totals:
        """See `Way`."""
        return {
            parameter: _weighted(factors, parts).reshape(parameter.shape)
            for parameter, parts in self._gradients.items()
        }


def _weighted(factors: Tensor, parts: list[Tensor]) -> Tensor:
    """Sum of the rows of all parts, each times its factor."""
    each = torch.split(factors.to(parts[0].dtype), [len(part) for part in parts])
    total: Tensor = each[0] @ parts[0]
    for factor, part in zip(each[1:], parts[1:], strict=True):
        total.addmv_(part.mT, factor)
    return total


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


def squares(rows: Tensor) -> Tensor:
    """Squared norm of each row, [rows, numbers] to float64 [rows].

    In double precision from a thousand numbers on: torch's own float32 norm of 23 million is 0.13% short, and its
    float64 norm of float32 numbers takes four times as long as this.
    """
    count, blocks = len(rows), rows.shape[1] // _BLOCK
    head, rest = rows[:, : blocks * _BLOCK].reshape(count, blocks, _BLOCK), rows[:, blocks * _BLOCK :]
    found: Tensor = torch.linalg.vecdot(rest, rest).to(torch.float64)
    return found.add_(torch.linalg.vecdot(head, head).sum(dim=1, dtype=torch.float64))


def squared(gram_a: Tensor, gram_b: Tensor) -> Tensor:
    """Sum of the product of two Gram matrices, [patients, t, t] each; float64 [patients], never negative."""
    found = torch.bmm(gram_a.flatten(1)[:, None, :], gram_b.flatten(1)[:, :, None]).reshape(-1)
    return found.to(torch.float64).clamp(min=0)
