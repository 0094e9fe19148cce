"""EfficientNet-B0 (Tan and Le 2019), MONAI's, with group normalisation and without drop-connect.

Drop-connect is off because it draws chance inside the network, where neither the same seed nor a
per-sample gradient can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from monai.networks.nets.efficientnet import EfficientNetBN
from torch import nn

from common.models.convert import child, per_image
from common.models.network import Parts, PooledHead


@dataclass(frozen=True)
class EfficientNetOptions:
    """`efficientnet-b0` has no options: its widths and depths are its definition."""


def efficientnet_b0(_options: EfficientNetOptions, channels: int, outputs: int) -> Parts:
    """Feature map at a thirty-second of the input, 1280 channels.

    Args:
        channels: input channels.
        outputs: logits per image.
    """
    net = EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=channels, num_classes=outputs
    )
    per_image(cast("nn.Module", net))
    for module in net.modules():
        if hasattr(module, "drop_connect_rate"):
            module.drop_connect_rate = 0.0
    stem = [child(net, name) for name in ("_conv_stem_padding", "_conv_stem", "_bn0")]
    blocks = cast("nn.Sequential", child(net, "_blocks"))
    top = [child(net, name) for name in ("_conv_head_padding", "_conv_head", "_bn1")]
    body = nn.Sequential(*stem, nn.SiLU(), blocks, *top, nn.SiLU())
    features = cast("nn.GroupNorm", top[-1]).num_channels
    return Parts(body, PooledHead(features, outputs), (list(blocks)[-1], *top))
