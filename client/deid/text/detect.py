"""Where text may stand: a small network over stroke maps, cheap enough to look at every image.

No window is chosen. A top-hat leaves strokes, bright ones and dark ones; their mean and their highest value in
squares of four pixels, with the gradients, are divided by what is usual around. Three layers of twelve filters
say of each square whether it lies in a line of letters. The same is done at half and quarter size, so that
letters from 6 to about 100 pixels are met. The weights come from `simulations.text_training`.

A candidate is a question to the reader, no verdict; see `client.deid.text.clean` for what becomes of it.
"""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CELL: Final = 4
"""Pixels a side of the squares that are judged."""
KERNEL: Final = 7
"""Pixels of the top-hat: strokes thinner than this stay; the next level takes thicker ones."""
AROUND: Final = 15
"""Squares over which the usual structure is averaged."""
DILATIONS: Final = (1, 2, 4)
"""Of the three layers of 3 x 3 filters: a square is judged by the 60 pixels around it."""
MAPS: Final = 7
"""Of `stroke_maps`: strokes bright and dark, change across and down, highest strokes bright and dark, how lively."""
LEVELS: Final = 3
SMALLEST: Final = 24
"""Pixels a side, below which an image shows no readable text."""
COARSEST: Final = 96
"""Pixels a side of the smallest level after the first: letters taller than a third of the image are not looked for."""
ASK: Final = 1.0
"""Logit from which squares are joined to a candidate."""
SURE: Final = 3.5
"""Logit that one square of a candidate reaches at least."""
LEAST_SQUARES: Final = 4
TURNED: Final = 1.5
"""Times as high as wide, from which letters may follow one another from row to row."""
AT_ONCE: Final = 4_000_000
"""Pixels looked at at once, with about 30 bytes each; larger images are looked at in bands of rows."""
OVERLAP: Final = 200
"""Rows that two bands share."""
BLOCK: Final = 1_024
"""Squares whose neighbourhoods are laid out at once: half a megabyte."""
WEIGHTS: Final = Path(__file__).with_name("detect.toml")
_CELL: Final = cv2.getStructuringElement(cv2.MORPH_RECT, (CELL, CELL))
_SQUARE: Final = cv2.getStructuringElement(cv2.MORPH_RECT, (KERNEL, KERNEL))


@dataclass(frozen=True, order=True)
class Candidate:
    """A place that looks like text, half open, in pixels of the frame."""

    strength: float
    """The mean logit of its squares: how much it looks like text."""
    top: int
    left: int
    bottom: int
    right: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""
        return (self.top, self.left, self.bottom, self.right)

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    def moved(self, down: int) -> Candidate:
        """The same place as seen from so many rows further up."""
        return Candidate(self.strength, self.top + down, self.left, self.bottom + down, self.right)

    @property
    def turned(self) -> bool:
        """Whether it is taller than wide, so that its letters may follow one another from row to row."""
        return self.height > TURNED * self.width


def candidates(frame: npt.NDArray[Any]) -> list[Candidate]:
    """Places that may be text in one frame, the likeliest first; those that overlap are joined.

    Args:
        frame: [rows, columns] of any number type, in any units.
    """
    rows = max(2 * OVERLAP, AT_ONCE // frame.shape[1])
    found: list[Candidate] = []
    for first in range(0, max(1, frame.shape[0] - OVERLAP), rows - OVERLAP):
        band = frame[first : first + rows]
        found += [c.moved(first) for c in _in_band(band)]
    return sorted(_joined(found), reverse=True)


def _in_band(band: npt.NDArray[Any]) -> Iterator[Candidate]:
    level = np.ascontiguousarray(band, np.float32)
    for step in range(LEVELS):
        if min(level.shape) < (COARSEST if step else SMALLEST):
            return
        for piece in _pieces(logits(stroke_maps(level))):
            yield _scaled(piece, CELL << step, band.shape)
        level = cv2.resize(level, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def stroke_maps(level: Floats) -> Floats:
    """What the network sees of an image: float32 [rows // 4, columns // 4, 7], logarithms of ratios."""
    rows, cols = level.shape[0] // CELL, level.shape[1] // CELL
    smooth = cv2.GaussianBlur(level[: rows * CELL, : cols * CELL], (3, 3), 0.7)
    strokes = [cv2.morphologyEx(smooth, kind, _SQUARE) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)]
    across = cv2.copyMakeBorder(cv2.absdiff(smooth[:, 2:], smooth[:, :-2]), 0, 0, 1, 1, cv2.BORDER_REPLICATE)
    down = cv2.copyMakeBorder(cv2.absdiff(smooth[2:], smooth[:-2]), 1, 1, 0, 0, cv2.BORDER_REPLICATE)
    means = [cv2.resize(m, (cols, rows), interpolation=cv2.INTER_AREA) for m in (*strokes, across, down)]
    peaks = [cv2.dilate(m, _CELL, anchor=(0, 0))[::CELL, ::CELL] for m in strokes]
    usual = cv2.blur(means[0] + means[1], (AROUND, AROUND), borderType=cv2.BORDER_REFLECT)
    whole = max(float(usual.mean()), 1e-9)
    over = 1 / np.maximum(usual, 0.1 * whole)
    maps = cv2.merge([*(m * over + 0.1 for m in (*means, *peaks)), 1 / (over * whole)])
    clipped: Floats = np.clip(cv2.log(maps), -4, 6)
    return clipped


def logits(maps: Floats) -> Floats:
    """How much each square looks like a part of a line of text: float32 [rows, columns]."""
    layers = _weights()
    for (weight, bias), dilation in zip(layers[:-1], DILATIONS, strict=True):
        maps = _convolved(maps, weight, bias, dilation)
    weight, bias = layers[-1]
    last: Floats = (maps @ weight + bias)[..., 0]
    return last


def _convolved(maps: Floats, weight: Floats, bias: Floats, dilation: int) -> Floats:
    """3 x 3 filters, zeros outside, nothing below zero; weight is [9 * channels, filters].

    Some rows at a time, so that their neighbourhoods stay in the cache.
    """
    rows, cols, channels = maps.shape
    wide = np.zeros((rows + 2 * dilation, cols + 2 * dilation, channels), np.float32)
    wide[dilation:-dilation, dilation:-dilation] = maps
    block = max(1, BLOCK // cols)
    seen = np.empty((min(block, rows), cols, 9, channels), np.float32)
    made = np.empty((rows, cols, weight.shape[1]), np.float32)
    for first in range(0, rows, block):
        count = min(block, rows - first)
        for place in range(9):
            y, x = first + (place // 3) * dilation, (place % 3) * dilation
            seen[:count, :, place] = wide[y : y + count, x : x + cols]
        near = seen[:count].reshape(count * cols, 9 * channels)
        out = made[first : first + count].reshape(count * cols, -1)
        np.matmul(near, weight, out=out)
        out += bias
        np.maximum(out, 0, out=out)
    return made


@lru_cache(maxsize=1)
def _weights() -> tuple[tuple[Floats, Floats], ...]:
    layers = tomllib.loads(WEIGHTS.read_text(encoding="utf-8"))["layer"]
    return tuple(_layer(layer["numbers"], layer["inputs"], layer["filters"]) for layer in layers)


def _layer(numbers: str, inputs: int, filters: int) -> tuple[Floats, Floats]:
    whole = np.frombuffer(base64.b64decode(numbers), "<f2").astype(np.float32).reshape(inputs + 1, filters)
    return whole[:-1], whole[-1]


def _pieces(judged: Floats) -> Iterator[Candidate]:
    """Joined squares, in squares."""
    if float(judged.max(initial=-1.0)) < SURE:
        return
    mask = (judged > ASK).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[number])
        here = judged[top : top + height, left : left + width][
            labels[top : top + height, left : left + width] == number
        ]
        if area >= LEAST_SQUARES and here.max() >= SURE:
            yield Candidate(float(here.mean()), top, left, top + height, left + width)


def _scaled(piece: Candidate, scale: int, shape: tuple[int, ...]) -> Candidate:
    top, left, bottom, right = (side * scale for side in piece.box)
    return Candidate(piece.strength, top, left, min(bottom, shape[0]), min(right, shape[1]))


def _joined(found: list[Candidate]) -> list[Candidate]:
    """The same place met at several levels, and parts of one line, become one candidate."""
    kept: list[Candidate] = []
    for one in sorted(found, reverse=True):
        whole = one
        for other in [other for other in kept if _meet(one, other)]:
            kept.remove(other)
            sides = zip(whole.box, other.box, (min, min, max, max), strict=True)
            whole = Candidate(max(whole.strength, other.strength), *(pick(a, b) for a, b, pick in sides))
        kept.append(whole)
    return kept


def _meet(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates overlap by half, or follow one another along one line."""
    tall, wide = min(one.height, other.height), min(one.width, other.width)
    high = min(one.bottom, other.bottom) - max(one.top, other.top)
    across = min(one.right, other.right) - max(one.left, other.left)
    areas = [c.height * c.width for c in (one, other)]
    over = high > 0 and across > 0 and 2 * high * across >= min(areas)
    in_row = 2 * high >= tall and across >= -tall and not (one.turned or other.turned)
    in_column = (
        2 * across >= wide and high >= -wide and one.height >= one.width and other.height >= other.width
    )
    return over or in_row or in_column
