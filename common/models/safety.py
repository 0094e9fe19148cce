"""Whether a network may be trained under differential privacy, said in named reasons."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.models.network import Network


def dp_problems(net: Network) -> list[str]:
    """Reasons why `net`, in its present mode, cannot be trained under DP; empty when it can.

    Frozen parts count too: a frozen BatchNorm in train mode still writes patients into its running
    statistics, and nothing downstream would notice.
    """
    problems = [p for name, module in net.named_modules() for p in _of_module(name, module)]
    problems.extend(_shared(net))
    if not net.trainable():
        problems.append("nothing-to-train: every parameter is frozen")
    return problems or _unsupported(net)


def _of_module(name: str, module: nn.Module) -> list[str]:
    found = []
    if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
        found.append(f"batch-norm: {name} mixes the images of a batch")
    if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:  # noqa: SLF001  # torch has no public base
        found.append(f"running-statistics: {name} keeps statistics of the images")
    if getattr(module, "inplace", False):
        found.append(f"in-place: {name} overwrites its input, which per-sample gradients need")
    return found


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
