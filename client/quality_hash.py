"""Images that look the same: a perceptual hash, and groups of images whose hashes nearly agree.

The hash is two times 256 signs of a cosine transform of the image brought to 64 x 64 by area means: of the
lowest 16 x 16 coefficients against their median (the mean counts as below), which tell the
picture; and of the 16 x 16 coefficients at twice those frequencies against zero, which tell its detail. (C.
Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, has the first with 64.)
Two images are near-duplicates when both halves nearly agree: many chests are alike in the first alone. Size,
contrast, mild compression and noise hardly change a hash; a stamp laid over the image or another crop does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SIDE: Final = 64
"""The image is brought to this many rows and columns."""
KEPT: Final = 16
"""Frequencies kept along each side, in each half."""
NEAR: Final = 32
"""Most bits in which the first halves of near-duplicates differ."""
NEAR_DETAIL: Final = 48
"""Most bits in which their second halves differ. Origin of both: `docs/quality.md`."""
_ENOUGH: Final = 256
"""Shorter sides from twice this length on are thinned out first: large images cost no more."""
_TILE: Final = (128, 1024)
"""Images compared at once with so many others: what fits a processor's cache."""
_FIRST_LOOK: Final = (2, 3)
"""Words of 64 bits that are compared for every pair. Where all of the first half differs in `near` bits at
most, one of these two differs in half as many: nothing is lost. Unlike chests differ most in them."""

_COSINES: Final = np.array(
    [[math.cos(math.pi * k * (2 * n + 1) / (2 * SIDE)) for n in range(SIDE)] for k in range(2 * KEPT)],
    dtype=np.float32,
)
_COSINES[0] /= math.sqrt(2)


def perceptual_hash(pixels: npt.NDArray[np.float32]) -> str:
    """The hash of one image in 128 hexadecimal digits; empty for one too small or without structure.

    Args:
        pixels: [rows, columns] or [frames, rows, columns] in any unit; of frames the middle one.
    """
    image = pixels[len(pixels) // 2] if pixels.ndim == 3 else pixels
    if image.ndim != 2 or min(image.shape) < SIDE:
        return ""
    small = area_means(image, SIDE)
    if not float(np.ptp(small)) > 0:  # also where they are not numbers
        return ""
    waves = _COSINES @ small @ _COSINES.T
    waves[0, 0] = -np.inf
    low, high = waves[:KEPT, :KEPT], waves[KEPT:, KEPT:]
    return np.packbits(np.concatenate([low > _median(low), high > 0])).tobytes().hex()


def _median(values: npt.NDArray[np.floating[Any]]) -> np.float32:
    """Of an even count, as numpy has it; its own function costs ten times as much for so few."""
    ordered = np.sort(values, axis=None)
    middle = len(ordered) // 2
    return np.float32((ordered[middle - 1] + ordered[middle]) / 2)


def area_means(image: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """[side, side] means over a grid laid on the image, whose sides are at least that long."""
    step = max(1, min(image.shape) // _ENOUGH)
    image = np.ascontiguousarray(image[::step, ::step], dtype=np.float32)
    if not (image.shape[0] % side or image.shape[1] % side):  # whole cells: the same means, much sooner
        import cv2  # noqa: PLC0415 - slow to import, and who trains needs no fingerprint

        return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)
    rows, cols = (np.linspace(0, length, side + 1).astype(np.intp) for length in image.shape)
    sums = np.add.reduceat(image, rows[:-1], axis=0, dtype=np.float32)
    sums = np.add.reduceat(sums, cols[:-1], axis=1)
    return np.asarray(sums / np.outer(np.diff(rows), np.diff(cols)), dtype=np.float32)


def distance(one: str, other: str) -> tuple[int, int]:
    """Bits in which the halves of two hashes differ."""
    middle = len(one) // 2
    halves = ((one[:middle], other[:middle]), (one[middle:], other[middle:]))
    first, second = ((int(a, 16) ^ int(b, 16)).bit_count() for a, b in halves)
    return first, second


def alike(
    hashes: Sequence[str], owners: Sequence[str], *, near: tuple[int, int] = (NEAR, NEAR_DETAIL)
) -> list[tuple[int, int]]:
    """Pairs of images of different owners that are near-duplicates, by place.

    Every pair is compared, most of them in two words of 64 bits only.

    Args:
        hashes: of `perceptual_hash`; empty ones are like nothing.
        owners: whose image each is.
        near: the largest distances of the two halves that count.
    """
    places = np.array([place for place, code in enumerate(hashes) if code], dtype=np.int64)
    if len(places) < 2:
        return []
    raw = np.array([list(bytes.fromhex(hashes[place])) for place in places], dtype=np.uint8)
    words = np.ascontiguousarray(raw.view(np.uint64).T)
    rows, cols = _candidates(words, near[0] // 2)
    half = len(words) // 2
    for part, most in zip((words[:half], words[half:]), near, strict=True):
        bits = np.bitwise_count(part[:, rows] ^ part[:, cols]).sum(axis=0)
        rows, cols = rows[bits <= most], cols[bits <= most]
    pairs = {(int(places[row]), int(places[col])) for row, col in zip(rows, cols, strict=True)}
    return sorted(pair for pair in pairs if owners[pair[0]] != owners[pair[1]])


def _candidates(words: npt.NDArray[np.uint64], most: int) -> tuple[npt.NDArray[np.intp], ...]:
    """Pairs (two arrays of places, the smaller first) that one of the first words leaves possible; words: [8, n]."""
    n = words.shape[1]
    found: list[npt.NDArray[np.intp]] = [np.empty((2, 0), dtype=np.intp)]
    for top in range(0, n, _TILE[0]):
        for left in range(top, n, _TILE[1]):
            for word in _FIRST_LOOK:
                block = words[word, top : top + _TILE[0], None] ^ words[word, None, left : left + _TILE[1]]
                near = np.bitwise_count(block) <= most
                if near.any():
                    pairs = np.stack(np.nonzero(near)) + np.array([[top], [left]])
                    found.append(pairs[:, pairs[1] > pairs[0]])
    rows, cols = np.concatenate(found, axis=1)
    return rows, cols


def groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Places joined by pairs, directly or through others; each group and the list in order."""
    root: dict[int, int] = {}

    def top(place: int) -> int:
        """The smallest known member of a place's group."""
        while root.setdefault(place, place) != place:
            place = root[place]
        return place

    for one, other in pairs:
        low, high = sorted((top(one), top(other)))
        root[high] = low
    members: dict[int, list[int]] = {}
    for place in sorted(root):
        members.setdefault(top(place), []).append(place)
    return sorted(members.values())
