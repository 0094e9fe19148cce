"""From the Gram matrix of an image's pixels to that of its patches: a sum of shifted copies, one axis at a time."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Taps(NamedTuple):
    """How a convolution steps along one axis."""

    kernel: int
    stride: int
    dilation: int
    padding: int

    def reach(self, tap: int, pixels: int, outputs: int) -> tuple[int, int]:
        """The first and one past the last output under whose `tap` lies a pixel, and no padding."""
        offset = tap * self.dilation - self.padding
        first = max(0, -(offset // self.stride))
        return first, max(first, min(outputs, (pixels - 1 - offset) // self.stride + 1))


def shifted(gram: Tensor, axis: int, taps: Taps, outputs: int) -> Tensor:
    """Sum over the taps of one axis of products of pixels that lie under the same tap.

    A kernel is a rectangle, so that its taps can be summed along the one axis and then along the other: of a
    3 by 3 kernel six copies instead of nine.

    Args:
        gram: [patients, images, rows, columns, images, rows, columns] products of pixels.
        axis: 2 for rows, 3 for columns; the other of the pair lies three further.
        taps: of the convolution along this axis.
        outputs: positions that the convolution has along it.

    Returns:
        The same with `outputs` positions at both places of the axis.
    """
    pixels = gram.shape[axis]
    if (taps.kernel, taps.stride, taps.padding) == (1, 1, 0):
        return gram
    shape = list(gram.shape)
    shape[axis] = shape[axis + 3] = outputs
    found = gram.new_zeros(shape)
    for tap in range(taps.kernel):
        first, end = taps.reach(tap, pixels, outputs)
        if end == first:
            continue
        start = first * taps.stride + tap * taps.dilation - taps.padding
        source = slice(start, start + (end - first - 1) * taps.stride + 1, taps.stride)
        _both(found, axis, slice(first, end)).add_(_both(gram, axis, source))
    return found


def _both(gram: Tensor, axis: int, part: slice) -> Tensor:
    """A part of an axis at both of its places."""
    every = [slice(None)] * gram.dim()
    every[axis] = every[axis + 3] = part
    return gram[tuple(every)]
