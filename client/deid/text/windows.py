"""One picture in several 8-bit renderings, because text may hide at either end of the range or in a narrow band."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Window = tuple[float, float]
"""Lowest and highest stored value of the range that is spread over black to white."""

NARROW: Final = 0.02
"""Share of the range at its top or bottom that is spread over the whole of 8 bits."""
FLAT_PIXELS: Final = 15.0
"""Standard deviation of the blur that is taken away for the high-pass rendering."""


def renderings(crop: npt.NDArray[Any], whole: Window, header: Window | None = None) -> Iterator[Bytes]:
    """A part of a frame as 8-bit pictures, the likeliest to be readable first.

    Args:
        crop: [rows, columns] stored values.
        whole: smallest and largest value of the whole frame.
        header: the window the image itself asks for, in stored values.

    Yields:
        [rows, columns] uint8: by the part's own percentiles; with slow changes taken away; the top and the bottom
        of the frame's range; the header's window; the frame's full range. Renderings that hold one value are left out.
    """
    values = crop.astype(np.float32)
    low, high = np.percentile(values, (1, 99.7))
    yield from _some(values, (float(low), float(high)))
    yield from _some(*_flat(values))
    span = whole[1] - whole[0]
    yield from _some(values, (whole[1] - NARROW * span, whole[1]))
    yield from _some(values, (whole[0], whole[0] + NARROW * span))
    if header is not None:
        yield from _some(values, header)
    yield from _some(values, whole)


def _some(values: npt.NDArray[np.float32], window: Window) -> Iterator[Bytes]:
    low, high = window
    if high <= low:
        return
    picture = np.clip((values - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    if picture.min() != picture.max():
        yield picture


def _flat(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], Window]:
    smooth = cv2.GaussianBlur(values, (0, 0), 0.6)
    detail = smooth - cv2.GaussianBlur(values, (0, 0), FLAT_PIXELS)
    low, high = np.percentile(detail, (1, 99.7))
    return detail, (float(low), float(high))
