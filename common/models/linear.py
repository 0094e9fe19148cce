"""One linear layer over every number of the input: logistic regression, for a row of a table or a very small image.

A table's row of p columns is an image of 1 by p (`simulations/tables`), so that training, privacy, ledger, masks and
figures are those of images.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from common.models.network import Parts, PooledHead


@dataclass(frozen=True)
class LinearOptions:
    """Options of `linear`: it has none."""


class Columns(nn.Module):
    """Every number of the input as a feature of its own: [batch, c, rows, columns] to [batch, c * rows * columns, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers in the same order."""
        return x.flatten(1)[:, :, None, None]


def linear(_options: LinearOptions, channels: int, outputs: int, shape: tuple[int, int]) -> Parts:
    """A body without weights and one linear layer.

    Args:
        channels: input channels.
        outputs: logits per image.
        shape: rows and columns of the input.
    """
    return Parts(Columns(), PooledHead(channels * shape[0] * shape[1], outputs))
