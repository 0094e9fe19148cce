"""Makes a network from elsewhere safe for per-sample gradients, before any weight is trained.

Three things are changed everywhere in it: batch normalisation becomes group normalisation (an image
must not see the others of its batch, and no running statistic may leave the hospital), no module
overwrites its input, and the memory-saving swish becomes the plain one.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import WrongOrder

_MOST_GROUPS = 32
"""Wu and He, "Group normalization", 2018: best of those tried on ImageNet."""
_LEAST_CHANNELS = 4
"""Channels in a group at least, so that a feature map of one pixel still has a variance."""


def per_image(module: nn.Module) -> nn.Module:
    """Change every child of `module`, at any depth, as this file says; returns `module`."""
    for name, child in module.named_children():
        setattr(module, name, _changed(per_image(child)))
    return module


def groups_for(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32 and leaves four channels or more to a group."""
    most = min(_MOST_GROUPS, max(1, channels // _LEAST_CHANNELS))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def _changed(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return nn.GroupNorm(groups_for(module.num_features), module.num_features)
    if type(module).__name__ == "MemoryEfficientSwish":
        return nn.SiLU()
    if getattr(module, "inplace", False) is True:
        cast("Any", module).inplace = False
    return module


def child(module: nn.Module, name: str) -> nn.Module:
    """A child by name, as a module; `WrongOrder` if the library that made `module` has renamed it."""
    found = getattr(module, name, None)
    if not isinstance(found, nn.Module):
        raise WrongOrder(type(module).__name__, f"it has no layer {name}", "Pin the version of MONAI")
    return found
