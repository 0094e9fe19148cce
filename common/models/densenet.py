"""DenseNet121 (Huang et al. 2017), MONAI's, with group normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from monai.networks.nets.densenet import DenseNet
from torch import nn

from common.models.convert import child, per_image
from common.models.network import Parts, PooledHead
from common.models.options import option


@dataclass(frozen=True)
class DenseNetOptions:
    """Options of `densenet121`."""

    growth: int = option(32, least=8, most=64)
    """Channels each layer adds."""
    features: int = option(64, least=16, most=128)
    """Channels after the first convolution."""


def densenet121(options: DenseNetOptions, channels: int, outputs: int) -> Parts:
    """Feature map at a thirty-second of the input, 1024 channels by default.

    Args:
        options: growth and first width.
        channels: input channels.
        outputs: logits per image.
    """
    net = DenseNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=outputs,
        init_features=options.features,
        growth_rate=options.growth,
    )
    features = per_image(cast("nn.Module", net.features))
    norm = cast("nn.GroupNorm", child(features, "norm5"))
    body = nn.Sequential(features, nn.ReLU())
    return Parts(body, PooledHead(norm.num_channels, outputs), (child(features, "denseblock4"), norm))
