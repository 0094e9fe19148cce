"""Small pictures with and without invented text, for the tests of burned-in text."""

from __future__ import annotations

import cv2
import numpy as np

from client.deid.text.found import Box

NAME = "ABENDROTH 1955"


def ground(size: int = 256, seed: int = 0, level: float = 1200.0) -> np.ndarray:
    """Smooth anatomy with noise: [size, size] uint16 in 12 bits, nothing below 300 or above 3,000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    smooth = level + 900 * np.exp(-3 * x**2) - 500 * np.exp(-((np.abs(x) - 0.5) ** 2) / 0.05 - y**2 / 0.4)
    return np.clip(smooth + rng.normal(0, 20, (size, size)), 300, 3000).astype("<u2")


def write(
    pixels: np.ndarray,
    text: str = NAME,
    at: tuple[int, int] = (220, 20),
    value: int = 4000,
    *,
    height: int = 12,
    turned: bool = False,
) -> tuple[np.ndarray, Box]:
    """A copy with text whose lower left corner is at (row, column), and where its ink stands."""
    canvas = np.zeros(pixels.shape, np.uint8)
    thickness = 2 if height >= 16 else 1
    cv2.putText(canvas, text, at[::-1], cv2.FONT_HERSHEY_SIMPLEX, height / 21, 255, thickness, cv2.LINE_AA)
    if turned:
        canvas = np.ascontiguousarray(np.rot90(canvas))
    ink = canvas.astype(float) / 255
    rows, cols = np.flatnonzero(ink.max(axis=1)), np.flatnonzero(ink.max(axis=0))
    box = Box(0, int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
    return (pixels * (1 - ink) + value * ink).round().astype(pixels.dtype), box


def covered(box: Box, boxes: tuple[Box, ...]) -> float:
    """Share of a box that lies under others of its frame."""
    under = np.zeros((box.bottom, box.right), bool)
    for one in boxes:
        if one.frame == box.frame:
            under[one.top : one.bottom, one.left : one.right] = True
    return float(under[box.top :, box.left :].mean())
