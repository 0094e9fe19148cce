"""The figures of one image by which the quality gate judges it, and of which a hospital's report tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

LARGEST_PATCH: Final = 512
"""Sharpness and noise are measured on at most this central square, so that large images cost no more."""

_STRIP: Final = 128
"""Rows measured together; 64 rows of 512 pixels are 128 KiB."""
_IMMERKAER: Final = math.sqrt(math.pi / 2) / 6
"""Scale of the mean absolute response of Immerkaer's mask to Gaussian noise: J. Immerkaer, Fast noise
variance estimation, Computer Vision and Image Understanding 64 (1996) 300-302."""

_SECOND_DIFFERENCE: Final = np.array([1, -2, 1], dtype=np.float32)


def measure(image: npt.NDArray[np.float32]) -> dict[str, float]:
    """The figures of one image [rows, columns]; about 0.6 ms for 512 x 512.

    side (pixels, the shorter), median and spread (1% to 99%, modality units), and without unit: clipped and
    saturated (shares of pixels at both ends and at the upper end of the range), contrast (spread by
    range), sharpness (variance of the Laplacian by variance), noise (Immerkaer's estimate by spread), exposure (where the
    median of the pixels between the two ends lies in the range).
    """
    return measured(image, float(image.min()), float(image.max()))


def measured(image: npt.NDArray[np.float32], low: float, high: float) -> dict[str, float]:
    """The same where the least and the greatest value are known."""
    step = max(1, min(image.shape) // 128)
    some = np.ravel(image[::step, ::step])
    inside = slice(int(np.count_nonzero(some == low)), some.size - int(np.count_nonzero(some == high)))
    first, middle, last, mid_inside = _order_statistics(
        some, [_place(some.size, share) for share in (0.01, 0.5, 0.99)] + [_middle(inside)]
    )
    spread = last - first
    reach = high - low or 1.0
    patch = _centre(image)
    saturated = np.count_nonzero(image == high) / image.size
    return {
        "side": float(min(image.shape)),
        "median": middle,
        "spread": spread,
        "clipped": saturated + np.count_nonzero(image == low) / image.size,
        "saturated": saturated,
        "contrast": spread / reach,
        "sharpness": _sharpness(patch),
        "noise": noise(patch) / (spread or 1.0),
        "exposure": (mid_inside - low) / reach if inside.stop > inside.start else 0.0,
    }


def noise(image: npt.NDArray[np.float32]) -> float:
    """Standard deviation of Gaussian noise in the image's units, edges and smooth ramps left out (Immerkaer)."""
    if min(image.shape) < 3:
        return 0.0
    total = 0.0
    for strip in _strips(image):
        response = cv2.sepFilter2D(strip, cv2.CV_32F, _SECOND_DIFFERENCE, _SECOND_DIFFERENCE)[1:-1, 1:-1]
        total += float(cv2.norm(response, cv2.NORM_L1))
    rows, cols = image.shape
    return total / float((rows - 2) * (cols - 2)) * _IMMERKAER


def _order_statistics(values: npt.NDArray[np.float32], places: Sequence[int]) -> list[float]:
    """The values that would stand at these places if all were sorted, which is not done."""
    parted = np.partition(values, sorted(set(places)))
    return [float(parted[place]) for place in places]


def _place(count: int, share: float) -> int:
    return min(count - 1, int(share * count))


def _middle(inside: slice) -> int:
    """The place of the median of the pixels between the two ends of the range, or any place when there is none."""
    count = inside.stop - inside.start
    return int(inside.start) + _place(count, 0.5) if count > 0 else 0


def _centre(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    top, left = (max(0, (size - LARGEST_PATCH) // 2) for size in image.shape)
    return image[top : top + LARGEST_PATCH, left : left + LARGEST_PATCH].astype(np.float32, copy=False)


def _strips(image: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """The image in strips that fit a processor's cache, each with the row before and the row after it."""
    for top in range(1, image.shape[0] - 1, _STRIP):
        yield image[top - 1 : min(top + _STRIP, image.shape[0] - 1) + 1]


def _sharpness(image: npt.NDArray[np.float32]) -> float:
    if min(image.shape) < 3:
        return 0.0
    sums, squares = _moments(image[top : top + _STRIP] for top in range(0, image.shape[0], _STRIP))
    whole = squares - sums**2 / image.size
    if whole <= 0:
        return 0.0
    rows, cols = image.shape
    count = float((rows - 2) * (cols - 2))
    sums, squares = _moments(
        cv2.Laplacian(strip, cv2.CV_32F, ksize=1)[1:-1, 1:-1] for strip in _strips(image)
    )
    return (squares / count - (sums / count) ** 2) / (whole / float(rows * cols))


def _moments(parts: Iterable[npt.NDArray[Any]]) -> tuple[float, float]:
    """Sum and sum of squares of all values, added up in float64."""
    sums = squares = 0.0
    for part in parts:
        sums += cv2.sumElems(part)[0]
        squares += cv2.norm(part, cv2.NORM_L2SQR)
    return sums, squares
