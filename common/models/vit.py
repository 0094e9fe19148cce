"""A plain vision transformer, MONAI's, with fixed positions and average pooling.

Beyer, Zhai and Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022: sine-cosine positions
and average pooling do no worse than a class token, and leave nothing that learns outside a layer.
MONAI's block carries a norm for cross-attention that this network never uses; it is taken out,
because a parameter without a gradient has no per-sample gradient either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from monai.networks.nets.vit import ViT
from torch import Tensor, nn

from common.errors import PlanError, Problem
from common.models.convert import child, per_image
from common.models.network import Parts, PooledHead
from common.models.options import option


@dataclass(frozen=True)
class VitOptions:
    """Options of `vit`; the defaults are DeiT-Tiny's (Touvron et al. 2021) with smaller patches."""

    patch: int = option(8, least=2, most=32)
    """Rows and columns of a patch in pixels; must divide the input's."""
    hidden: int = option(192, least=16, most=1024)
    """Width of a token; a multiple of 4 and of `heads`."""
    layers: int = option(12, least=1, most=24)
    heads: int = option(3, least=1, most=16)


class TokenMap(nn.Module):
    """Images to tokens, laid out again as a map [batch, hidden, rows/patch, columns/patch].

    Args:
        net: MONAI's ViT without a classification head.
        grid: patches down and across.
    """

    def __init__(self, net: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.net = net
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """The token map of images [batch, channels, rows, columns]."""
        tokens = cast("Tensor", self.net(x)[0])
        return tokens.transpose(1, 2).reshape(len(x), -1, *self.grid)


def vit(options: VitOptions, channels: int, outputs: int, shape: tuple[int, int]) -> Parts:
    """Transformer body, average over tokens, linear head.

    Args:
        options: see `VitOptions`.
        channels: input channels.
        outputs: logits per image.
        shape: rows and columns of the input in pixels.

    Raises:
        PlanError: if patch and input, or hidden width and heads, do not fit.
    """
    _check(options, shape)
    net = ViT(
        in_channels=channels,
        img_size=shape,
        patch_size=options.patch,
        hidden_size=options.hidden,
        mlp_dim=4 * options.hidden,
        num_layers=options.layers,
        num_heads=options.heads,
        pos_embed_type="none",
        classification=False,
        spatial_dims=2,
    )
    grid = (shape[0] // options.patch, shape[1] // options.patch)
    net.patch_embedding.position_embeddings = nn.Parameter(
        positions(grid, options.hidden), requires_grad=False
    )
    blocks = list(cast("nn.ModuleList", net.blocks))
    for block in blocks:
        block.norm_cross_attn = nn.Identity()
    body = TokenMap(per_image(net), grid)
    return Parts(body, PooledHead(options.hidden, outputs), (blocks[-1], child(net, "norm")))


def positions(grid: tuple[int, int], hidden: int) -> Tensor:
    """Sine and cosine of row and column at hidden / 4 frequencies: float32 [1, rows * columns, hidden]."""
    frequencies = 10_000.0 ** (-torch.arange(hidden // 4) * 4 / hidden)
    axes = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    phases = [axis.reshape(-1, 1) * frequencies for axis in axes]
    return torch.cat([f(phase) for phase in phases for f in (torch.sin, torch.cos)], dim=1)[None]


def _check(options: VitOptions, shape: tuple[int, int]) -> None:
    problems = []
    if any(side % options.patch for side in shape):
        rule = f"{options.patch} does not divide the input's {shape[0]} by {shape[1]} pixels"
        problems.append(Problem("model.options.patch", rule, "Choose a divisor of both"))
    if options.hidden % options.heads or options.hidden % 4:
        rule = f"{options.hidden} is not a multiple of 4 and of the {options.heads} heads"
        problems.append(Problem("model.options.hidden", rule, "Choose a multiple of both"))
    if problems:
        raise PlanError("plan", problems)
