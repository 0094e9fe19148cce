"""Convolutions over two axes: inputs [images, in, rows, columns], outputs [images, out, rows, columns]."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.privacy.bookkeeping.layer import Kept, Seen, Totals, Way, squared, squares
from client.privacy.bookkeeping.shifts import Taps, shifted

_TOGETHER: Final = 8
"""Patients in one grouped convolution: of 2, 4, 8 and 32 the quickest, or near it, at every size measured."""


def weight_gradient(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> Tensor:
    """The ordinary gradient of the weight for these images."""
    return _gradient(layer, layer.weight, inputs, outputs, layer.groups)


def _gradient(layer: nn.Conv2d, weight: Tensor, inputs: Tensor, outputs: Tensor, groups: int) -> Tensor:
    found: Tensor = torch.ops.aten.convolution_backward(
        outputs,
        inputs,
        weight,
        None,
        list(layer.stride),
        list(_padding(layer)),
        list(layer.dilation),
        False,
        [0, 0],
        groups,
        [False, True, False],
    )[1]
    return found


class ConvSum(Way):
    """Norms in a way of its own; the sum is one ordinary weight gradient of scaled output gradients."""

    def __init__(self, layer: nn.Conv2d, seen: Seen) -> None:
        """Take one convolution in one step."""
        self._layer, self._seen = layer, seen

    def totals(self, factors: Tensor) -> Totals:
        """See `Way`."""
        return {
            self._layer.weight: weight_gradient(self._layer, self._seen.inputs, self._seen.scaled(factors))
        }


class ConvNorm(ConvSum):
    """Ghost norm from Gram matrices of positions; the patches' Gram is a sum of shifted pixel Grams."""

    def squares(self) -> Tensor:
        """See `Way`."""
        seen = self._seen
        outputs = seen.outputs.flatten(2).mT
        laid = seen.spans.laid_out(outputs)
        return squared(self._patches(), laid @ laid.mT)

    def _patches(self) -> Tensor:
        """Gram matrix of the patches under every output position, [patients, t, t]."""
        layer, seen = self._layer, self._seen
        pixels = seen.spans.laid_out(seen.inputs.flatten(2).mT)
        gram = pixels @ pixels.mT
        rows, columns = seen.inputs.shape[2:]
        images = pixels.shape[1] // (rows * columns)
        gram = gram.reshape(-1, images, rows, columns, images, rows, columns)
        padding = _padding(layer)
        for axis in (1, 0):  # along a row first: the innermost numbers lie side by side
            taps = Taps(layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis], padding[axis])
            gram = shifted(gram, 2 + axis, taps, seen.outputs.shape[2 + axis])
        side = gram[0, ..., 0, 0, 0].numel()
        return gram.reshape(-1, side, side)


class ConvLoop(ConvSum):
    """One weight gradient a patient, measured and forgotten."""

    def squares(self) -> Tensor:
        """See `Way`."""
        seen, layer = self._seen, self._layer
        each = [
            squares(weight_gradient(layer, seen.inputs[part], seen.outputs[part]).reshape(1, -1))
            for part in seen.spans.parts()
        ]
        return torch.cat(each)


def conv_looped(layer: nn.Conv2d, seen: Seen) -> Kept:
    """One weight gradient a patient, kept."""
    each = [weight_gradient(layer, seen.inputs[part], seen.outputs[part]) for part in seen.spans.parts()]
    return Kept({layer.weight: [one[None] for one in each]})


def groupable(layer: nn.Conv2d, seen: Seen) -> bool:
    """Whether `conv_grouped` knows the batch: as many images of each patient, and a layer of one group."""
    return layer.groups == 1 and seen.spans.equal > 0


def conv_grouped(layer: nn.Conv2d, seen: Seen) -> Kept:
    """Every patient's weight gradient, some patients at a time, as the groups of one convolution."""
    step = _TOGETHER * seen.spans.equal
    batches = zip(torch.split(seen.inputs, step), torch.split(seen.outputs, step), strict=True)
    return Kept({layer.weight: [_grouped(layer, *batch, seen.spans.equal) for batch in batches]})


def _grouped(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor, images: int) -> Tensor:
    """Weight gradients [patients, *weight] of patients with so many images each."""
    patients = len(inputs) // images

    def side_by_side(values: Tensor) -> Tensor:
        """[patients * images, channels, ...] to [images, patients * channels, ...]."""
        apart = values.reshape(patients, images, *values.shape[1:])
        return apart.transpose(0, 1).reshape(images, -1, *values.shape[2:])

    weight = layer.weight.repeat(patients, 1, 1, 1)
    found = _gradient(layer, weight, side_by_side(inputs), side_by_side(outputs), patients)
    return found.reshape(patients, *layer.weight.shape)


def conv_unfolded(layer: nn.Conv2d, seen: Seen) -> Kept:
    """Every patient's weight gradient as a product of output gradients and unfolded patches."""
    patches = _unfolded(layer, seen.inputs)
    outputs = seen.outputs.flatten(2)
    if seen.spans.single:
        each = outputs @ patches.mT
    else:
        each = seen.spans.laid_out(outputs.mT).mT @ seen.spans.laid_out(patches.mT)
    return Kept({layer.weight: [each.reshape(len(each), *layer.weight.shape)]})


def pointwise(layer: nn.Conv2d) -> bool:
    """Whether a patch is a pixel."""
    return layer.kernel_size == (1, 1) and layer.stride == (1, 1) and _padding(layer) == (0, 0)


def _unfolded(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    if pointwise(layer):
        return inputs.flatten(2)
    return functional.unfold(inputs, layer.kernel_size, layer.dilation, _padding(layer), layer.stride)


def conv_bias(layer: nn.Conv2d, seen: Seen) -> Kept:
    """Every patient's bias gradient."""
    if layer.bias is None:
        return Kept({})
    return Kept({layer.bias: [seen.spans.sums(seen.outputs.sum(dim=(2, 3)))]})


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    if isinstance(layer.padding, str):
        if layer.padding == "valid":
            return 0, 0
        high, wide = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return high, wide
    return layer.padding[0], layer.padding[1]
