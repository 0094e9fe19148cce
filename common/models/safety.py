"""Whether a network may be trained under differential privacy, said in named reasons."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.models.network import Network

_RUNNING: Final = ("running_", "num_batches")
"""How torch's layers name the buffers in which they keep statistics of what they saw."""
_SKIPPED: Final = ("DropPath", "StochasticDepth", "DropConnect")
_SKIP_RATES: Final = ("drop_connect_rate", "drop_prob", "drop_path_rate", "survival_prob")
_APART: Final = 1e-4
"""Relative; float32 in batches of one size differs by far less."""


def dp_problems(net: Network) -> list[str]:
    """Reasons why `net`, in its present mode, cannot be trained under DP; empty when it can.

    Frozen parts count too: a frozen BatchNorm in train mode still writes patients into its running
    statistics, and nothing downstream would notice.
    """
    problems = [p for name, module in net.named_modules() for p in _of_module(name, module)]
    problems.extend(_shared(net))
    if not net.trainable():
        problems.append("nothing-to-train: every parameter is frozen")
    return problems or _unsupported(net) or _mixed(net)


def _of_module(name: str, module: nn.Module) -> list[str]:
    found = []
    if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
        found.append(f"batch-norm: {name} mixes the images of a batch")
    elif module.training and any(key.startswith(_RUNNING) for key, _ in module.named_buffers(recurse=False)):
        found.append(f"running-statistics: {name} keeps statistics of the images")
    if _skips(module):
        found.append(f"stochastic-depth: {name} is left out at random, for several images at once")
    if getattr(module, "inplace", False):
        found.append(f"in-place: {name} overwrites its input, which per-sample gradients need")
    return found


def _skips(module: nn.Module) -> bool:
    rates = [getattr(module, name, None) for name in _SKIP_RATES]
    at_rate = any(isinstance(rate, (int, float)) and 0 < rate < 1 for rate in rates)
    return at_rate or (
        any(word in type(module).__name__ for word in _SKIPPED) and not any(r == 0 for r in rates)
    )


@torch.no_grad()
def _mixed(net: Network) -> list[str]:
    """Whether an image's logits hang on the images beside it: tried, because a list of names is never whole."""
    blueprint, place = net.blueprint, next(net.parameters())
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, blueprint.channels, *blueprint.shape, generator=draw).to(place)
    other = x.clone()
    other[1:] = 2 * x[1:].flip(0) + 1
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        one = net(x)[0]
        torch.default_generator.manual_seed(0)
        two = net(other)[0]
    if torch.allclose(one, two, rtol=_APART, atol=_APART):
        return []
    return ["mixes-patients: the logits of an image change with the other images of its batch"]


def _shared(net: Network) -> list[str]:
    """Parameters reached by two names: per-sample gradients of each use would overwrite the other's."""
    seen: dict[int, str] = {}
    problems = []
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        if id(parameter) in seen:
            problems.append(f"shared: {name} is the same tensor as {seen[id(parameter)]}")
        seen.setdefault(id(parameter), name)
    return problems


def _unsupported(net: Network) -> list[str]:
    """Trainable layers for which Opacus has no per-sample gradient."""
    from opacus.validators import ModuleValidator  # noqa: PLC0415  # Opacus loads slowly

    return [f"unsupported: {error}" for error in ModuleValidator.validate(net, strict=False)]
