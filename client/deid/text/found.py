"""What was found in the pixels of one image: places, never the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from common.errors import FileRefused


class Box(NamedTuple):
    """A rectangle of pixels of one frame, half open."""

    frame: int
    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Hit:
    """One place where something stands that may be text."""

    box: Box
    confidence: float
    """0 to 1, by the reader; 0 where it could not read what the detector saw."""
    kind: Literal["text", "marker", "unread"]
    """Words; a side marker of the listed set, which stays; something like text that was not read."""


@dataclass(frozen=True)
class Decision:
    """What a person decided about one image that waited in review; given to the worker with its task."""

    blank: tuple[Box, ...] = ()
    """Blanked before anything else looks at the pixels."""
    waive: tuple[str, ...] = ()
    """Codes `review-…` that this person has looked into and that do not stop this image again."""


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Pixels whose text is gone, and what was found and done."""

    pixels: npt.NDArray[np.integer[Any]]
    """As they came where nothing was blanked; else a copy, same shape and type."""
    hits: tuple[Hit, ...] = ()
    blanked: tuple[Box, ...] = ()
    searched: bool = True
    """False where the site's settings say that pixels are not searched."""


class TextReview(FileRefused):
    """An image on which a person must decide, with the places to look at in `boxes`."""

    boxes: tuple[Box, ...]

    @classmethod
    def at(cls, boxes: tuple[Box, ...]) -> Self:
        """The refusal `review-text` for these places."""
        error = cls(
            "an image",
            "something in its pixels looks like text and could not be read or blanked with certainty",
            "Look at it with consilium-site review: blank it, accept it or refuse it",
            code="review-text",
        )
        error.boxes = boxes
        return error
