"""Convolutions over two axes: inputs [images, in, rows, columns], outputs [images, out, rows, columns]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.privacy.bookkeeping.layer import Kept, Seen, Totals, Way, squared


def weight_gradient(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> Tensor:
    """The ordinary gradient of the weight for these images."""
    found: Tensor = torch.ops.aten.convolution_backward(
        outputs,
        inputs,
        layer.weight,
        None,
        list(layer.stride),
        list(_padding(layer)),
        list(layer.dilation),
        False,
        [0, 0],
        layer.groups,
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
        top, left = _padding(layer)
        padded = functional.pad(seen.inputs, (left, left, top, top)) if top or left else seen.inputs
        height, width = padded.shape[2:]
        pixels = seen.spans.laid_out(padded.flatten(2).mT)
        gram = pixels @ pixels.mT
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            return gram
        images = pixels.shape[1] // (height * width)
        gram = gram.reshape(-1, images, height, width, images, height, width)
        rows, cols = seen.outputs.shape[2:]
        found: Tensor | None = None
        for y in range(layer.kernel_size[0]):
            ys = _steps(y * layer.dilation[0], rows, layer.stride[0])
            for x in range(layer.kernel_size[1]):
                xs = _steps(x * layer.dilation[1], cols, layer.stride[1])
                part = gram[:, :, ys, xs, :, ys, xs]
                found = part.clone() if found is None else found.add_(part)
        side = images * rows * cols
        return gram if found is None else found.reshape(-1, side, side)


class ConvLoop(ConvSum):
    """One weight gradient a patient, measured and forgotten."""

    def squares(self) -> Tensor:
        """See `Way`."""
        seen, layer = self._seen, self._layer
        norms = [
            torch.linalg.vector_norm(
                weight_gradient(layer, seen.inputs[part], seen.outputs[part]), dtype=torch.float64
            )
            for part in seen.spans.parts()
        ]
        return torch.stack(norms).square()


def conv_looped(layer: nn.Conv2d, seen: Seen) -> Kept:
    """One weight gradient a patient, kept."""
    each = [weight_gradient(layer, seen.inputs[part], seen.outputs[part]) for part in seen.spans.parts()]
    return Kept({layer.weight: torch.stack(each)})


def conv_unfolded(layer: nn.Conv2d, seen: Seen) -> Kept:
    """Every patient's weight gradient as a product of output gradients and unfolded patches."""
    patches = functional.unfold(seen.inputs, layer.kernel_size, layer.dilation, _padding(layer), layer.stride)
    outputs = seen.outputs.flatten(2)
    if seen.spans.single:
        each = outputs @ patches.mT
    else:
        each = seen.spans.laid_out(outputs.mT).mT @ seen.spans.laid_out(patches.mT)
    return Kept({layer.weight: each.reshape(len(each), *layer.weight.shape)})


def conv_bias(layer: nn.Conv2d, seen: Seen) -> Kept:
    """Every patient's bias gradient."""
    if layer.bias is None:
        return Kept({})
    return Kept({layer.bias: seen.spans.sums(seen.outputs.sum(dim=(2, 3)))})


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    if isinstance(layer.padding, str):
        if layer.padding == "valid":
            return 0, 0
        high, wide = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return high, wide
    return layer.padding[0], layer.padding[1]


def _steps(first: int, count: int, stride: int) -> slice:
    return slice(first, first + (count - 1) * stride + 1, stride)
