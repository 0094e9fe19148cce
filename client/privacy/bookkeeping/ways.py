"""Which ways a layer has, and the choice of the cheapest by a short timing when the layer is first met."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from client.privacy.bookkeeping import conv, linear, norm
from client.privacy.bookkeeping.layer import Joined, Kept, Seen, Way

MOST_KEPT: Final = 2.0
"""How large a layer's patients' gradients may be if they are kept until all norms are known, as a multiple
of what would be kept instead: the layer's input and the gradient of its output."""
MOST_GRAM: Final = 1 << 23
"""Numbers of one layer's Gram matrices."""

_TRIAL: Final = 8
"""Patients on whom the ways are timed."""

MOST_PATCHES: Final = 1 << 22
"""Numbers of a whole batch's unfolded patches (16 MiB)."""

Maker = Callable[[Seen], Way]


def supported(module: nn.Module) -> bool:
    """Whether the gradients of this layer's own parameters can be had."""
    if type(module) is nn.Conv2d:
        return plain(module)
    return type(module) in (nn.Linear, nn.GroupNorm, nn.LayerNorm) or (type(module) in _samplers())


def plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution pads with zeros, alike on both sides: others' gradients nobody here knows."""
    uneven = layer.padding == "same" and any(
        d * (k - 1) % 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    return layer.padding_mode == "zeros" and not uneven


def ways(module: nn.Module, seen: Seen) -> Mapping[str, Maker]:
    """Every way this layer could go in a step of this size, by name."""
    if isinstance(module, nn.Linear):
        return _with_bias(module, _linear(module, seen), lambda s: linear.linear_bias(module, s))
    if isinstance(module, nn.Conv2d):
        return _with_bias(module, _conv(module, seen), lambda s: conv.conv_bias(module, s))
    if isinstance(module, nn.GroupNorm):
        return {
            "products": lambda s: norm.group_norm(module, s),
            "fused": lambda s: norm.group_norm_fused(module, s),
        }
    if isinstance(module, nn.LayerNorm):
        return {"closed form": lambda s: norm.layer_norm(module, s)}
    return {"opacus": lambda s: by_opacus(module, s)}


def by_opacus(module: nn.Module, seen: Seen) -> Kept:
    """The per-sample gradients of a layer that only Opacus knows."""
    sampler = _samplers()[type(module)]
    found = sampler(module, [seen.inputs], seen.outputs)
    return Kept({p: [seen.spans.sums(each)] for p, each in found.items() if p.requires_grad})


def _samplers() -> Mapping[type[nn.Module], Callable[..., Mapping[nn.Parameter, Tensor]]]:
    """Of Opacus, by layer."""
    from opacus import GradSampleModule  # noqa: PLC0415 - slow to import, and rarely needed

    found: Mapping[type[nn.Module], Callable[..., Mapping[nn.Parameter, Tensor]]] = (
        GradSampleModule.GRAD_SAMPLERS
    )
    return found


def cheapest(makers: Mapping[str, Maker], seen: Seen) -> str:
    """The name of the way that takes the least time here; two runs each, the better one counts.

    The first few images decide for all: every way's time grows with their number, and so does its memory.
    """
    if len(makers) == 1:
        return next(iter(makers))
    few = seen.first(_TRIAL)
    return min(makers, key=lambda name: min(_seconds(makers[name], few) for _ in range(2)))


def _seconds(maker: Maker, seen: Seen) -> float:
    """Of this thread on the processor, so that a busy machine does not decide; on a GPU, of the clock."""
    clock = time.perf_counter if seen.outputs.is_cuda else time.thread_time
    begun = clock()
    way = maker(seen)
    way.totals(way.squares().clamp(max=1))
    if seen.outputs.is_cuda:
        torch.cuda.synchronize()
    return clock() - begun


def _may_keep(weight: Tensor, seen: Seen) -> bool:
    return seen.spans.patients * weight.numel() <= MOST_KEPT * (seen.inputs.numel() + seen.outputs.numel())


def _linear(layer: nn.Linear, seen: Seen) -> dict[str, Maker]:
    found: dict[str, Maker] = {"norm": lambda s: linear.LinearNorm(layer, s)}
    if _may_keep(layer.weight, seen):
        found["kept"] = lambda s: linear.linear_kept(layer, s)
    return found


def _conv(layer: nn.Conv2d, seen: Seen) -> dict[str, Maker]:
    found: dict[str, Maker] = {"loop": lambda s: conv.ConvLoop(layer, s)}
    kept = _may_keep(layer.weight, seen)
    if kept:
        found["looped"] = lambda s: conv.conv_looped(layer, s)
    if kept and conv.groupable(layer, seen):
        found["grouped"] = lambda s: conv.conv_grouped(layer, s)
    if layer.groups > 1:
        return found
    patches = layer.weight[0].numel() * seen.outputs[:, 0].numel()
    if kept and (conv.pointwise(layer) or patches <= MOST_PATCHES):
        found["unfolded"] = lambda s: conv.conv_unfolded(layer, s)
    positions = max(seen.spans.counts) * seen.inputs[0, 0].numel()
    if seen.spans.patients * positions**2 <= MOST_GRAM:
        found["norm"] = lambda s: conv.ConvNorm(layer, s)
    return found


def _with_bias(
    layer: nn.Linear | nn.Conv2d, weight: Mapping[str, Maker], bias: Callable[[Seen], Kept]
) -> Mapping[str, Maker]:
    learns = layer.bias is not None and layer.bias.requires_grad
    if not layer.weight.requires_grad:
        return {"closed form": bias}
    if not learns:
        return weight
    return {name: _both(make, bias) for name, make in weight.items()}


def _both(weight: Maker, bias: Maker) -> Maker:
    return lambda seen: Joined(weight(seen), bias(seen))
