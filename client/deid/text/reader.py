"""The reader of text: PaddleOCR's models by RapidOCR, loaded when the first candidate is met.

Words live in this process only and never leave it. The models need about 180 MB and one thread. A reader that
cannot be loaded is no reason to let an image pass.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from common.errors import FileRefused

Bytes = npt.NDArray[np.uint8]

DETECTOR_SIDE: Final = 32
"""The network halves its input five times: sides are multiples of this."""
LEAST_SIDE: Final = 4
"""Pixels, below which a picture holds no letter."""
ROOM: Final = 16
"""Pixels added around what is read; letters at the edge of a picture are read badly."""
MOST_PIXELS: Final = 1_200_000
"""Of what is given to the reader at once; it takes about 450 bytes of memory a pixel, measured."""


@dataclass(frozen=True)
class Word:
    """One line that was read: what, how surely (0 to 1), and where in the picture given, half open."""

    text: str
    confidence: float
    top: int
    left: int
    bottom: int
    right: int

    def moved(self, down: int, right: int) -> Word:
        """The same line as seen from further up and left by so many pixels."""
        return Word(
            self.text,
            self.confidence,
            self.top + down,
            self.left + right,
            self.bottom + down,
            self.right + right,
        )


def read(picture: Bytes, *, scale: float = 1.0) -> list[Word]:
    """Every line of text in a picture.

    Args:
        picture: [rows, columns] uint8.
        scale: by which it is enlarged first.

    Raises:
        FileRefused: `review-reader`, when the reader cannot be loaded or fails.
    """
    engine = _engine()
    scale = min(scale, math.sqrt(MOST_PIXELS / picture.size))
    size = [max(DETECTOR_SIDE, round(side * scale)) for side in picture.shape]
    larger = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    larger = cv2.copyMakeBorder(larger, ROOM, ROOM, ROOM, ROOM, cv2.BORDER_REPLICATE)
    try:
        found, _ = engine(cv2.cvtColor(larger, cv2.COLOR_GRAY2BGR))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (the runtime's own kinds, most of them for want of memory)
        raise _no_reader() from None
    factors = np.array([picture.shape[1] / size[1], picture.shape[0] / size[0]])
    return list(_words(found or [], factors, picture.shape))


def read_line(picture: Bytes) -> tuple[str, float]:
    """A picture read as one line from left to right: its text, and how surely; nothing where it is too small.

    Args:
        picture: [rows, columns] uint8.

    Raises:
        FileRefused: `review-reader`, when the reader cannot be loaded or fails.
    """
    if min(picture.shape) < LEAST_SIDE or picture.size > MOST_PIXELS:
        return "", 0.0
    engine = _engine()
    try:
        found, _ = engine(
            cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), use_det=False, use_cls=False, use_rec=True
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (as above)
        raise _no_reader() from None
    return (str(found[0][0]), float(found[0][1])) if found else ("", 0.0)


def _words(found: list[Any], factors: npt.NDArray[np.float64], shape: tuple[int, ...]) -> Iterator[Word]:
    for corners, text, confidence in found:
        points = (np.asarray(corners, np.float64) - ROOM) * factors
        left, top = np.floor(points.min(axis=0)).astype(int).clip(0)
        right, bottom = np.ceil(points.max(axis=0)).astype(int).clip(1)
        yield Word(
            str(text),
            float(confidence),
            int(top),
            int(left),
            min(int(bottom), shape[0]),
            min(int(right), shape[1]),
        )


@lru_cache(maxsize=1)
def _engine() -> Any:
    """One reader for the life of the process.

    Raises:
        FileRefused: `review-reader`.
    """
    try:
        module = importlib.import_module("rapidocr_onnxruntime")
        logging.getLogger("rapidocr").setLevel(logging.CRITICAL)  # it would name files and sizes
        engine = module.RapidOCR(
            intra_op_num_threads=1,
            inter_op_num_threads=1,
            det_limit_side_len=DETECTOR_SIDE,
            det_limit_type="min",
            text_score=0.0,
            min_height=8,
        )
    except Exception:  # noqa: BLE001 (a missing wheel, a model that cannot be read, no memory: all one thing)
        raise _no_reader() from None
    return engine


def _no_reader() -> FileRefused:
    return FileRefused(
        "an image",
        "something in it looks like text, and the reader of text does not work",
        "Install rapidocr-onnxruntime anew and give workers more memory, then repeat the command",
        code="review-reader",
    )
