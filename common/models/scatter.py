"""Wavelet scattering with a small trainable head: features that cost no privacy.

The features are fixed before any patient is seen, so only the head's few parameters meet the noise
of differential privacy; see Tramer and Boneh, "Differentially private learning needs better features
(or much more data)", 2021. The scattering follows Bruna and Mallat, "Invariant scattering
convolution networks", 2013, and Oyallon and Mallat, 2015: Morlet wavelets at octave scales and
several orientations, modulus, average on a coarse grid; order 2 repeats it on each modulus. Octaves
are made by a pyramid, so that one small filter bank serves every scale.

Normalisation is per image and knows nothing of any other image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import PlanError, Problem
from common.models.network import Parts
from common.models.options import option

_SIGMA = 0.8
"""Width in pixels of the Morlet envelope at the finest scale; Bruna and Mallat 2013, section 2.1."""
_FREQUENCY = 3 * math.pi / 4
"""Radians per pixel of the Morlet carrier at the finest scale; same source."""
_SLANT = 0.5
"""Ratio of the envelope's two widths, so that more orientations can be told apart; same source."""
_REACH = 4
"""Filters span 2 * _REACH + 1 pixels: 2.5 standard deviations of the longer axis."""
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
"""Low-pass before halving; Burt and Adelson 1983."""
_TINY = 1e-8
"""Keeps the square root and the logarithm differentiable at zero; far below one grey level."""


@dataclass(frozen=True)
class ScatterOptions:
    """Options of `scatter`."""

    scales: int = option(4, least=1, most=6)
    """Octaves."""
    orientations: int = option(8, least=2, most=16)
    grid: int = option(4, least=1, most=32)
    """Rows and columns of the feature map."""
    order: int = option(1, least=1, most=2)
    hidden: int = option(0, least=0, most=256)
    """Units of one hidden layer in the head; 0: a linear head."""
    compress: str = option("log", choices=("none", "sqrt", "log"))
    """What is done to each average before normalisation; `log` turns a gain into an offset."""
    norm: str = option("order", choices=("none", "order", "scale", "all"))
    """Which channels of one image are brought together to mean 0 and variance 1: each order, each
    scale (or pair of scales), or all."""
    radius: float = option(10.0, least=0.1, most=1000)
    """Root mean square length of a feature vector over images: it sets what learning rate is stable."""


def scatter(options: ScatterOptions, channels: int, outputs: int, shape: tuple[int, int]) -> Parts:
    """Scattering body without a parameter; flattened linear head, or one hidden layer first.

    Args:
        options: see `ScatterOptions`.
        channels: input channels, scattered one by one.
        outputs: logits per image.
        shape: rows and columns of the input in pixels.

    Raises:
        PlanError: if the coarsest scale has fewer pixels than the grid.
    """
    coarsest = min(shape) // 2 ** (options.scales - 1)
    if coarsest < options.grid:
        rule = f"the coarsest of {options.scales} scales has {coarsest} pixels, fewer than the grid"
        raise PlanError("plan", [Problem("model.options.grid", rule, "Use fewer scales or a smaller grid")])
    body = Scattering(options)
    features = channels * body.channels_per_image * options.grid**2
    return Parts(body, _head(features, options.hidden, outputs))


def _head(features: int, hidden: int, outputs: int) -> nn.Module:
    if hidden:
        return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    linear = nn.Linear(features, outputs)
    # A logistic regression needs no random start, and under DP a start costs steps to forget.
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


class Scattering(nn.Module):
    """Images [batch, channels, rows, columns] to scattering maps [batch, features, grid, grid].

    Args:
        options: see `ScatterOptions`; the head's are ignored.
    """

    bank: Tensor
    smooth: Tensor

    def __init__(self, options: ScatterOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("bank", morlet_bank(options.orientations), persistent=False)
        taps = torch.tensor(_BINOMIAL)
        self.register_buffer(
            "smooth", (torch.outer(taps, taps) / taps.sum() ** 2)[None, None], persistent=False
        )

    @property
    def group_sizes(self) -> list[int]:
        """Channels of each group that is normalised together, in order, for one input channel."""
        scales, angles = self.options.scales, self.options.orientations
        pairs = [angles**2] * (scales * (scales - 1) // 2) if self.options.order == 2 else []
        if self.options.norm == "scale":
            return [1, *[angles] * scales, *pairs]
        if self.options.norm == "order":
            return [1, angles * scales, *([sum(pairs)] if pairs else [])]
        return [1 + angles * scales + sum(pairs)]

    @property
    def channels_per_image(self) -> int:
        """Feature channels for one input channel."""
        return sum(self.group_sizes)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Normalised scattering maps; float32, and an image's are the same in whatever batch it comes."""
        batch, channels, rows, columns = x.shape
        maps = self._scatter(x.reshape(batch * channels, 1, rows, columns))
        return self._normalised(maps).reshape(batch, -1, self.options.grid, self.options.grid)

    def _scatter(self, x: Tensor) -> Tensor:
        """Images [n, 1, rows, columns] to averages [n, channels_per_image, grid, grid], order by order."""
        first: list[Tensor] = []
        second: list[Tensor] = []
        level = x
        for scale in range(self.options.scales):
            modulus = self._modulus(level)
            first.append(self._compressed(modulus))
            if self.options.order == 2:
                second.extend(self._second_order(modulus, self.options.scales - 1 - scale))
            level = self._halved(level)
        return torch.cat([self._pooled(x), *first, *second], dim=1)

    def _second_order(self, modulus: Tensor, coarser: int) -> list[Tensor]:
        """Order-2 averages [n, orientations**2, grid, grid] at each of the `coarser` scales."""
        n, angles, rows, columns = modulus.shape
        level = modulus.reshape(n * angles, 1, rows, columns)
        maps = []
        for _ in range(coarser):
            level = self._halved(level)
            twice = self._compressed(self._modulus(level))
            maps.append(twice.reshape(n, angles * angles, *twice.shape[2:]))
        return maps

    def _modulus(self, level: Tensor) -> Tensor:
        """Images [n, 1, r, c] to wavelet moduli [n, orientations, r, c]; edges are repeated."""
        padded = functional.pad(level, (_REACH,) * 4, mode="replicate")
        real, imaginary = functional.conv2d(padded, self.bank).chunk(2, dim=1)
        return torch.sqrt(real.square() + imaginary.square() + _TINY**2)

    def _halved(self, level: Tensor) -> Tensor:
        """Images [n, 1, r, c] to [n, 1, ceil(r/2), ceil(c/2)], low-passed first."""
        return functional.conv2d(functional.pad(level, (2,) * 4, mode="replicate"), self.smooth, stride=2)

    def _pooled(self, maps: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(maps, self.options.grid)

    def _compressed(self, modulus: Tensor) -> Tensor:
        pooled = self._pooled(modulus)
        if self.options.compress == "log":
            return torch.log(pooled + 1e-3)
        return torch.sqrt(pooled) if self.options.compress == "sqrt" else pooled

    def _normalised(self, maps: Tensor) -> Tensor:
        """Each group of one image to mean 0 and variance 1, then the whole to length `radius`."""
        if self.options.norm != "none":
            groups = torch.split(maps, self.group_sizes, dim=1)
            maps = torch.cat([functional.group_norm(g, 1) for g in groups], dim=1)
        return maps * (self.options.radius / math.sqrt(maps[0].numel()))


def morlet_bank(orientations: int) -> Tensor:
    """Morlet wavelets [2 * orientations, 1, side, side]: real parts, then imaginary parts.

    Each has mean zero, so that brightness cannot pass, and its modulus sums to 1.
    """
    axis = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    waves = [_morlet(x, y, math.pi * k / orientations) for k in range(orientations)]
    bank = torch.cat([torch.stack([w.real for w in waves]), torch.stack([w.imag for w in waves])])
    return bank[:, None].to(torch.float32)


def _morlet(x: Tensor, y: Tensor, angle: float) -> Tensor:
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    envelope = torch.exp(-(along.square() + (_SLANT * across).square()) / (2 * _SIGMA**2))
    carrier = torch.exp(1j * _FREQUENCY * along)
    wave = envelope * (carrier - (envelope * carrier).sum() / envelope.sum())
    return wave / wave.abs().sum()
