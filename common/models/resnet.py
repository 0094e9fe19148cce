"""ResNet18 and ResNet50 (He et al. 2016), MONAI's layers, with group normalisation.

The residual is added out of place: MONAI adds it in place, which overwrites the activation that
per-sample gradients are computed from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from common.models.convert import child, per_image
from common.models.folding import fold, grey
from common.models.network import Parts, PooledHead
from common.models.options import option
from common.models.weights import taken, tensors


@dataclass(frozen=True)
class ResNetOptions:
    """Options of `resnet18` and `resnet50`."""

    width: float = option(1.0, least=0.125, most=2.0)
    """Factor on every layer's channels."""
    stem_stride: int = option(2, least=1, most=2)
    """1 keeps twice the resolution throughout, at four times the cost."""


class Residual(nn.Module):
    """`relu(path(x) + shortcut(x))`, none of it in place; [batch, channels, rows, columns] to the same kind.

    Args:
        block: a basic or bottleneck block of MONAI, whose convolutions and norms are taken over.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        depth = 3 if hasattr(block, "conv3") else 2
        for k in range(1, depth + 1):
            layers += [child(block, f"conv{k}"), child(block, f"bn{k}"), nn.ReLU()]
        self.path = nn.Sequential(*layers[:-1])
        downsample = getattr(block, "downsample", None)
        self.shortcut = downsample if isinstance(downsample, nn.Module) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for activations [batch, channels, rows, columns]."""
        return functional.relu(self.path(x) + self.shortcut(x))


def resnet18(options: ResNetOptions, channels: int, outputs: int, weights: str = "") -> Parts:
    """Two basic blocks a stage; feature map at a thirty-second of the input, 512 channels.

    Weights from elsewhere (`common.models.weights`, torchvision's names) come with their batch normalisation
    folded into the convolutions; without them it is group normalisation.
    """
    return _resnet("basic", [2, 2, 2, 2], options, (channels, outputs), weights)


def resnet50(options: ResNetOptions, channels: int, outputs: int, weights: str = "") -> Parts:
    """Three to six bottleneck blocks a stage; feature map at a thirty-second of the input, 2048 channels."""
    return _resnet("bottleneck", [3, 4, 6, 3], options, (channels, outputs), weights)


def _resnet(
    block: str, depths: list[int], options: ResNetOptions, ends: tuple[int, int], weights: str
) -> Parts:
    net = ResNet(
        block=block,
        layers=depths,
        block_inplanes=[64, 128, 256, 512],
        spatial_dims=2,
        n_input_channels=ends[0],
        conv1_t_size=7,
        conv1_t_stride=options.stem_stride,
        widen_factor=options.width,
        feed_forward=False,
        bias_downsample=False,
    )
    if weights:
        _load(net, weights)
        fold(net)
    per_image(cast("nn.Module", net))
    stages = [_stage(child(net, f"layer{k}")) for k in (1, 2, 3, 4)]
    body = nn.Sequential(child(net, "conv1"), child(net, "bn1"), nn.ReLU(), child(net, "maxpool"), *stages)
    return Parts(body, PooledHead(cast("int", net.in_planes), ends[1]), (stages[-1],))


@torch.no_grad()
def _load(net: nn.Module, weights: str) -> None:
    """Fill the network from torchvision's tensors; a first convolution for three colours is summed to grey."""
    found = tensors(weights)
    for name, own in net.state_dict().items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        if name == "conv1.weight" and found.get(name, own).shape[1:2] == (3,) and own.shape[1] == 1:
            colours = (own.shape[0], 3, *own.shape[2:])
            own.copy_(grey(taken(found, name, colours)))
        else:
            own.copy_(taken(found, name, tuple(own.shape)))


def _stage(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(Residual(block) for block in cast("Iterable[nn.Module]", layer)))
