"""Low-rank adapters: beside a frozen layer, a narrow path that learns (Hu et al., "LoRA", 2021).

Under differential privacy the noise grows with the number of trainable values; a path of rank r beside a
layer from n to m channels has r (n + m) of them instead of n m. The path's second half begins at zero, so
that the network begins as it was. Both halves are ordinary layers, whose per-patient gradients are known.
"""

from __future__ import annotations

from typing import Final, cast

from torch import Tensor, nn

from common.errors import PlanError, Problem

SIDES: Final = (1, 3)
"""Kernels that get an adapter; larger ones stand at the input, where there is little to narrow."""


class Adapted(nn.Module):
    """`layer(x) + up(down(x))`: the layer is frozen, `down` narrows to `rank` channels, `up` widens again.

    Args:
        layer: a Linear, or a convolution without groups.
        rank: channels of the narrow path; never more than the layer's own.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.layer = layer
        down, up = _linear(layer, rank) if isinstance(layer, nn.Linear) else _conv(layer, rank)
        self.down: nn.Module = down
        self.up: nn.Module = up
        nn.init.zeros_(up.weight)
        layer.requires_grad_(requires_grad=False)

    @property
    def sides(self) -> tuple[nn.Module, nn.Module]:
        """The two halves of the path that learns."""
        return self.down, self.up

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of `x`, and what the path adds to it."""
        return cast("Tensor", self.layer(x) + self.up(self.down(x)))


def adapt(body: nn.Module, rank: int, network: str) -> nn.Module:
    """Put an adapter beside every Linear and every 1x1 or 3x3 convolution of `body`; returns it.

    Args:
        body: changed in place, its layers frozen.
        rank: of each adapter.
        network: its name, for the message.

    Raises:
        PlanError: where there is no layer to adapt.
    """
    places = [
        (parent, name, layer)
        for parent in body.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and _takes_one(layer)
    ]
    if not places:
        rule = f"{network} has no layer beside which an adapter could learn"
        raise PlanError("plan", [Problem("model.trainable", rule, "Use 'head'")])
    for parent, name, layer in places:
        setattr(parent, name, Adapted(layer, rank))
    return body


def _takes_one(layer: nn.Linear | nn.Conv2d) -> bool:
    if type(layer) is nn.Linear:
        return True
    return type(layer) is nn.Conv2d and layer.groups == 1 and all(k in SIDES for k in layer.kernel_size)


_Pair = tuple[nn.Linear, nn.Linear] | tuple[nn.Conv2d, nn.Conv2d]


def _linear(layer: nn.Linear, rank: int) -> _Pair:
    narrow = min(rank, layer.in_features, layer.out_features)
    down = nn.Linear(layer.in_features, narrow, bias=False)
    return down, nn.Linear(narrow, layer.out_features, bias=False)


def _conv(layer: nn.Conv2d, rank: int) -> _Pair:
    narrow = min(rank, layer.in_channels * layer.weight[0, 0].numel(), layer.out_channels)
    down = nn.Conv2d(
        layer.in_channels,
        narrow,
        cast("tuple[int, int]", layer.kernel_size),
        cast("tuple[int, int]", layer.stride),
        cast("tuple[int, int]", layer.padding),
        cast("tuple[int, int]", layer.dilation),
        bias=False,
    )
    return down, nn.Conv2d(narrow, layer.out_channels, kernel_size=1, bias=False)
