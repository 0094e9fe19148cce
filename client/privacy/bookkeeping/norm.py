"""Group and layer normalisation: their gradients are sums over positions, one number a channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.privacy.bookkeeping.layer import Kept, Seen


def group_norm(layer: nn.GroupNorm, seen: Seen) -> Kept:
    """Every patient's scale and shift gradients, [patients, channels], by products and sums: for small maps."""
    images, channels = seen.inputs.shape[:2]
    inputs, outputs = seen.inputs.reshape(images, channels, -1), seen.outputs.reshape(images, channels, -1)
    mean, inverse = seen.statistics or _statistics(layer, seen)
    size = channels // layer.num_groups
    mean, inverse = (v.repeat_interleave(size, dim=1) for v in (mean, inverse))
    shift = outputs.sum(dim=2)
    product = torch.linalg.vecdot(inputs, outputs)
    return _kept(layer, seen, (product - shift * mean) * inverse, shift)


def group_norm_fused(layer: nn.GroupNorm, seen: Seen) -> Kept:
    """The same by torch's own kernel, in one pass over input and output gradient.

    To the kernel the batch is one image with as many channels as all images have together, so that what it sums
    over images is each image's own.
    """
    images, channels = seen.inputs.shape[:2]
    inputs, outputs = (v.reshape(1, images * channels, -1) for v in (seen.inputs, seen.outputs))
    mean, inverse = (v.reshape(1, -1) for v in seen.statistics or _statistics(layer, seen))
    # It wants a weight, and reads it only for the gradient of the input, which is not asked for.
    unread = inputs.new_ones(1).expand(images * channels)
    _, scale, shift = torch.ops.aten.native_group_norm_backward(
        outputs,
        inputs,
        mean,
        inverse,
        unread,
        1,
        images * channels,
        inputs.shape[2],
        images * layer.num_groups,
        [False, True, True],
    )
    return _kept(layer, seen, scale.reshape(images, channels), shift.reshape(images, channels))


def _statistics(layer: nn.GroupNorm, seen: Seen) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of each group, [images, groups], by torch's own kernel; its affine part is not asked."""
    images, channels = seen.inputs.shape[:2]
    positions = seen.inputs[0, 0].numel()
    inputs = seen.inputs.contiguous()
    _, mean, inverse = torch.native_group_norm(
        inputs, None, None, images, channels, positions, layer.num_groups, layer.eps
    )
    return mean, inverse


def layer_norm(layer: nn.LayerNorm, seen: Seen) -> Kept:
    """Every patient's scale and shift gradients, [patients, *normalised shape]."""
    normal = functional.layer_norm(seen.inputs, layer.normalized_shape, eps=layer.eps)
    shape = (len(normal), -1, *layer.normalized_shape)
    scale = (normal * seen.outputs).reshape(shape).sum(dim=1)
    return _kept(layer, seen, scale, seen.outputs.reshape(shape).sum(dim=1))


def _kept(layer: nn.GroupNorm | nn.LayerNorm, seen: Seen, scale: Tensor, shift: Tensor) -> Kept:
    pairs = ((layer.weight, scale), (layer.bias, shift))
    return Kept({p: [seen.spans.sums(v)] for p, v in pairs if p is not None and p.requires_grad})
