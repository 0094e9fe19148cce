"""Networks a malicious server would send, as small as they can be. No registry has them, so no hospital builds them:
an attack here begins where that wall has already fallen.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from common.models import Network
from common.models.network import Blueprint, Parts

_SCALE: Final = 1e-3
"""Of the imprint layer's weights: small, so that what they learn is not lost in their rounding."""
_LOGIT: Final = 2.0
"""Largest logit of an imprint network: every image is then about as far from its label as any other."""


def linear(side: int) -> Network:
    """One number a pixel, all zero: the gradient of an image is the image itself, half of it, with a sign."""
    layer = nn.Linear(side * side, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return _network("linear", nn.Sequential(nn.Flatten(), layer), nn.Identity(), side)


def imprint(side: int, edges: npt.NDArray[np.float64]) -> Network:
    """Robbing the Fed (Fowl et al. 2022, section 4): every row measures the mean brightness and opens above its edge.

    What two neighbouring rows learned differs by exactly the images whose brightness lies between their edges.

    Args:
        side: rows and columns of an image.
        edges: [bins] rising brightnesses.
    """
    pixels, bins = side * side, len(edges)
    first, last = nn.Linear(pixels, bins), nn.Linear(bins, 1)
    with torch.no_grad():
        first.weight.fill_(_SCALE / pixels)
        first.bias.copy_(torch.from_numpy(-_SCALE * edges))
        last.weight.fill_(_LOGIT / (_SCALE * bins))
        last.bias.zero_()
    return _network("imprint", nn.Sequential(nn.Flatten(), first, nn.ReLU()), last, side)


def perceptron(side: int, hidden: int, seed: int) -> Network:
    """One hidden layer over pixels: learns a few patients by heart, which is what membership inference lives on."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(side * side, hidden), nn.ReLU())
        return _network("perceptron", body, nn.Linear(hidden, 1), side)


def smooth(side: int, seed: int) -> Network:
    """Three smooth convolutions without pooling, as in Zhu et al. 2019: the easiest kind to invert."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after, stride in ((1, 16, 2), (16, 16, 2), (16, 16, 1)):
            layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2), nn.Tanh()]
        head = nn.Linear(16 * (side // 4) ** 2, 1)
        return _network("smooth", nn.Sequential(*layers, nn.Flatten()), head, side)


def _network(name: str, body: nn.Module, head: nn.Module, side: int) -> Network:
    return Network(Parts(body, head), Blueprint(f"audit-{name}", (), "all", 1, (side, side)))
