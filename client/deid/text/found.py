"""What was found in the pixels of one image: places, never the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


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
