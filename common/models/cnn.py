"""A small convolutional network: four blocks, at most 60,000 parameters, for hospitals without a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from common.errors import PlanError, Problem
from common.models.network import Parts, PooledHead
from common.models.options import option


@dataclass(frozen=True)
class CnnOptions:
    """Options of `small-cnn`."""

    width: int = option(16, least=4, most=64)
    """Channels of the first block; the next have 2, 3 and 4 times as many. 16 gives 47,000 parameters."""
    groups: int = option(4, least=1, most=16)
    """Groups of each GroupNorm; must divide `width`."""


def small_cnn(options: CnnOptions, channels: int, outputs: int, shape: tuple[int, int]) -> Parts:
    """Four times 3x3 convolution, GroupNorm, 2x2 maximum, ReLU; then pool and linear.

    Args:
        options: width and groups.
        channels: input channels.
        outputs: logits per image.
        shape: rows and columns of the input in pixels.

    Raises:
        PlanError: if `groups` does not divide `width`, or the image is too small to halve four times.
    """
    _check(options, shape)
    widths = [channels, *(options.width * k for k in (1, 2, 3, 4))]
    blocks = [_block(widths[i], widths[i + 1], options.groups) for i in range(4)]
    return Parts(nn.Sequential(*blocks), PooledHead(widths[-1], outputs), (blocks[-1],))


def _check(options: CnnOptions, shape: tuple[int, int]) -> None:
    problems = []
    if options.width % options.groups:
        rule = f"{options.groups} does not divide the width {options.width}"
        problems.append(Problem("model.options.groups", rule, "Choose a divisor of the width"))
    if min(shape) < 16:
        problems.append(
            Problem("input.shape", "small-cnn needs 16 by 16 pixels or more", "Enlarge the input")
        )
    if problems:
        raise PlanError("plan", problems)


def _block(before: int, after: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(groups, after),
        nn.MaxPool2d(2),
        nn.ReLU(),  # after the maximum: the same bits, gradients included, of a quarter of the values
    )
