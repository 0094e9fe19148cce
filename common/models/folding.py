"""Batch normalisation folded into the convolution before it: the same outputs, and no statistic left.

In evaluation mode batch normalisation is a fixed affine map of each channel, y = g (x - m) / sqrt(v + e) + b.
After a convolution it is the same as the convolution with W' = W g / sqrt(v + e) and
b' = b + (c - m) g / sqrt(v + e), c being the convolution's own bias. The folded network holds no buffer, so
it can be trained under differential privacy; Jacob et al. 2018 fold so for another purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import InputError


@dataclass(frozen=True)
class Statistics:
    """What batch normalisation learned of each channel: float32 [channels] each."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    eps: float


def folded(weight: Tensor, bias: Tensor | None, of: Statistics) -> tuple[Tensor, Tensor]:
    """Weight [out, in / groups, rows, columns] and bias [out] of the convolution with its normalisation; float64 within."""
    factor = of.scale.double() / torch.sqrt(of.variance.double() + of.eps)
    own = torch.zeros_like(factor) if bias is None else bias.double()
    whole = weight.double() * factor[:, None, None, None]
    return whole.to(weight.dtype), (of.shift.double() + (own - of.mean.double()) * factor).to(weight.dtype)


def fold(module: nn.Module) -> nn.Module:
    """Fold every batch normalisation that follows a convolution, at any depth; returns `module`.

    Args:
        module: changed in place. A normalisation must stand right after its convolution among the children of
            the same parent; an identity takes its place.

    Raises:
        InputError: code `weights`: a normalisation that follows no convolution, as in DenseNet, or that kept
            no statistics.
    """
    for parent in list(module.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                if before is None or not isinstance(before[1], nn.Conv2d):
                    raise _not_after_a_convolution(name)
                setattr(parent, before[0], _convolution(before[1], _statistics(child, name)))
                setattr(parent, name, nn.Identity())
            before = (name, child)
    return module


def grey(weight: Tensor) -> Tensor:
    """A first convolution [out, 3, rows, columns] for one grey channel [out, 1, rows, columns]: grey is R = G = B."""
    return weight.sum(dim=1, keepdim=True)


def _convolution(layer: nn.Conv2d, of: Statistics) -> nn.Conv2d:
    weight, bias = folded(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), of)
    layer.weight = nn.Parameter(weight)
    layer.bias = nn.Parameter(bias)
    return layer


def _statistics(layer: _BatchNorm, name: str) -> Statistics:
    if layer.running_mean is None or layer.running_var is None:
        raise InputError(
            f"layer {name}",
            "it normalises by the batch at hand and kept no statistics",
            "Give weights of a network trained with running statistics",
            code="weights",
        )
    ones = torch.ones_like(layer.running_mean)
    return Statistics(
        ones if layer.weight is None else layer.weight.detach(),
        0 * ones if layer.bias is None else layer.bias.detach(),
        layer.running_mean,
        layer.running_var,
        layer.eps,
    )


def _not_after_a_convolution(name: str) -> InputError:
    return InputError(
        f"layer {name}",
        "batch normalisation that follows no convolution cannot be folded",
        "Use efficientnet-lite0, resnet18 or resnet50 for weights from elsewhere",
        code="weights",
    )
