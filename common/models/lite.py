"""EfficientNet-Lite0 (Tan and Le 2019; the Lite form of 2020 has ReLU6 and no squeeze-and-excitation), without normalisation.

Its batch normalisation is folded into the convolutions, with weights from ImageNet or a file, so that a
pretrained network can learn under differential privacy. The first convolution takes one grey channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from common.models.folding import Statistics, folded, grey
from common.models.network import Parts
from common.models.weights import taken, tensors

_STAGES: Final = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride, expansion, channels and blocks of each stage; Tan and Le 2019, table 1."""
_STEM: Final = 32
_TOP: Final = 1280
_EPS: Final = 1e-3
"""Of the batch normalisation that was folded; the published model's."""
_GAIN: Final = 0.5
"""The published model sees pixels in [-1, 1], whose deviation over ImageNet is about one half; an image
normalised to deviation 1 is brought there by the first convolution."""


@dataclass(frozen=True)
class LiteOptions:
    """`efficientnet-lite0` has no options: its widths and depths are its definition."""


class Inverted(nn.Module):
    """Widen, filter each channel, narrow; the input is added where the shape allows. [batch, channels, r, c].

    Args:
        layers: convolutions with their activations and paddings.
        short: whether the input is added.
    """

    def __init__(self, layers: list[nn.Module], *, short: bool) -> None:
        super().__init__()
        self.path = nn.Sequential(*layers)
        self.short = short

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        return cast("Tensor", x + self.path(x) if self.short else self.path(x))


def efficientnet_lite0(
    _options: LiteOptions, ends: tuple[int, int], shape: tuple[int, int], weights: str
) -> Parts:
    """Feature map at a thirty-second of the input, 1280 channels; a head on its normalised average.

    Args:
        ends: input channels, 1, and logits per image.
        shape: rows and columns of the input in pixels: what "same" padding means depends on them.
        weights: `model.weights`; empty: drawn at random.

    Raises:
        InputError: code `weights`.
    """
    channels, outputs = ends
    layers, side = _conv(channels, _STEM, (3, 2), shape)
    stem = [*layers, nn.ReLU6()]
    blocks: list[nn.Module] = []
    wide = _STEM
    for kernel, stride, expansion, out, count in _STAGES:
        for number in range(count):
            block, side = _block((wide, out), expansion, (kernel, stride if number == 0 else 1), side)
            blocks.append(block)
            wide = out
    top = [nn.Conv2d(wide, _TOP, 1), nn.ReLU6()]
    body = nn.Sequential(*stem, *blocks, *top)
    if weights:
        _load(body, tensors(weights))
    return Parts(body, _head(outputs), (blocks[-1], *top))


def _head(outputs: int) -> nn.Module:
    """Average, then mean 0 and variance 1 within the image, so that a gradient's length does not hang on the image."""
    normal = nn.LayerNorm(_TOP, elementwise_affine=False)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), normal, nn.Linear(_TOP, outputs))


def _block(
    ends: tuple[int, int], expansion: int, how: tuple[int, int], shape: tuple[int, int]
) -> tuple[nn.Module, tuple[int, int]]:
    wide = ends[0] * expansion
    layers: list[nn.Module] = [nn.Conv2d(ends[0], wide, 1), nn.ReLU6()] if expansion > 1 else []
    filters, after = _conv(wide, wide, how, shape, groups=wide)
    layers += [*filters, nn.ReLU6(), nn.Conv2d(wide, ends[1], 1)]
    return Inverted(layers, short=how[1] == 1 and ends[0] == ends[1]), after


def _conv(
    before: int, after: int, how: tuple[int, int], shape: tuple[int, int], *, groups: int = 1
) -> tuple[list[nn.Module], tuple[int, int]]:
    """A convolution padded as TensorFlow's "same", uneven where that asks for it; and the shape after it."""
    kernel, stride = how
    left_right = [_padding(side, kernel, stride) for side in reversed(shape)]
    convolution = nn.Conv2d(before, after, kernel, stride, groups=groups)
    pad = nn.ZeroPad2d(tuple(width for pair in left_right for width in pair))  # type: ignore[arg-type]  # four
    return [pad, convolution], (math.ceil(shape[0] / stride), math.ceil(shape[1] / stride))


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


@torch.no_grad()
def _load(body: nn.Module, found: dict[str, Tensor]) -> None:
    layers = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    for layer, (conv, norm) in zip(layers, _names(), strict=True):
        first = conv == "_conv_stem"
        shape = (layer.weight.shape[0], 3, *layer.weight.shape[2:]) if first else tuple(layer.weight.shape)
        given = taken(found, f"{conv}.weight", shape)
        size = (len(given),)
        scale, shift, mean, variance = (
            taken(found, f"{norm}.{n}", size) for n in ("weight", "bias", "running_mean", "running_var")
        )
        of = Statistics(scale, shift, mean, variance, _EPS)
        weight, bias = folded(grey(given) * _GAIN if first else given, None, of)
        layer.weight.copy_(weight)
        cast("Tensor", layer.bias).copy_(bias)


def _names() -> Iterator[tuple[str, str]]:
    """The published names of each convolution and its normalisation, in the order of the layers."""
    yield "_conv_stem", "_bn0"
    number = 0
    for _, _, expansion, _, count in _STAGES:
        for _ in range(count):
            block = f"_blocks.{number}"
            if expansion > 1:
                yield f"{block}._expand_conv", f"{block}._bn0"
            yield f"{block}._depthwise_conv", f"{block}._bn1"
            yield f"{block}._project_conv", f"{block}._bn2"
            number += 1
    yield "_conv_head", "_bn1"
