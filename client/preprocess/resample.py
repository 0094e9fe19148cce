"""Resampling to the network's grid: exact area means when shrinking, lines between pixels when growing.

Shrinking by area means keeps the mean and lowers noise as binning on a detector would; nothing aliases.
The aspect ratio of the anatomy is kept: the image is fitted into the grid and what is left is padding.
Sums run in float64 in a fixed order, so that the same image gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Grid = npt.NDArray[np.float64]


def fit(image: npt.NDArray[Any], shape: tuple[int, int], pixel_aspect: float = 1.0) -> Grid:
    """The image at the largest size that fits into `shape` with its aspect kept; not yet padded.

    Args:
        image: [rows, columns].
        shape: (rows, columns) of the network's grid.
        pixel_aspect: height of a pixel divided by its width.

    Returns:
        float64 [r, c] with r <= rows, c <= columns, and at least one of them equal.
    """
    height, width = image.shape[0] * pixel_aspect, float(image.shape[1])
    scale = min(shape[0] / height, shape[1] / width)
    rows = min(max(round(height * scale), 1), shape[0])
    cols = min(max(round(width * scale), 1), shape[1])
    return resize(image, (rows, cols))


def pad(image: Grid, shape: tuple[int, int], value: float) -> Grid:
    """Centre an image in `shape`; the rest is `value`. An odd pixel of padding goes below or right."""
    out = np.full(shape, value, dtype=np.float64)
    top, left = ((have - need) // 2 for have, need in zip(shape, image.shape, strict=True))
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def resize(image: npt.NDArray[Any], shape: tuple[int, int]) -> Grid:
    """Resample to exactly `shape`, each axis by itself; float64."""
    rows = _along_first(np.asarray(image, dtype=np.float64), shape[0])
    return np.ascontiguousarray(_along_first(np.ascontiguousarray(rows.T), shape[1]).T)


def _along_first(image: Grid, size: int) -> Grid:
    have = image.shape[0]
    if have == size:
        return image
    if have % size == 0:
        means: Grid = image.reshape(size, have // size, -1).mean(axis=1)
        return means
    return _area(image, size) if have > size else _line(image, size)


def _area(image: Grid, size: int) -> Grid:
    have = image.shape[0]
    sums = np.zeros((have + 1, image.shape[1]))
    np.cumsum(image, axis=0, out=sums[1:])
    edges = np.arange(size + 1) * (have / size)
    whole = np.minimum(edges.astype(np.int64), have)
    part = (edges - whole)[:, np.newaxis]
    at_edges = sums[whole] + part * image[np.minimum(whole, have - 1)]
    means: Grid = np.diff(at_edges, axis=0) * (size / have)
    return means


def _line(image: Grid, size: int) -> Grid:
    have = image.shape[0]
    centres = np.clip((np.arange(size) + 0.5) * (have / size) - 0.5, 0, have - 1)
    low = centres.astype(np.int64)
    high = np.minimum(low + 1, have - 1)
    part = (centres - low)[:, np.newaxis]
    between: Grid = image[low] * (1 - part) + image[high] * part
    return between
