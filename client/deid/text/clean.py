"""Burned-in text out of the pixels of one image, or the image to a person.

Laws, in order:
1. What the hospital or a person named is blanked, whatever else is found.
2. What the reader reads surely is blanked with a margin; a listed marker of side or position stays.
3. What looks like text and is not read surely goes to a person, unless a person has looked already.
4. After blanking, pixels are looked at once more, and must be clean.

This is a gate and no proof: docs/burned-in-text.md says how much is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from client.deid.settings import DeidSettings
from client.deid.text.detect import TURNED
from client.deid.text.found import Box, Cleaned, Decision, Hit, TextReview
from client.deid.text.look import Looker, Seen
from client.deid.text.regions import boxes_of, region_of
from client.deid.text.windows import Window

REVIEW_TEXT: Final = "review-text"
MARGIN: Final = 0.35
"""Of a line's height, blanked around it; strokes and smoothing reach beyond what is read."""
ALONG: Final = 1.0
"""The same at both ends of a line."""
LEAST_MARGIN: Final = 3
_LOOKER: Final = Looker()

Pixels = npt.NDArray[np.integer[Any]]


def clean(
    pixels: Pixels, source: Dataset, settings: DeidSettings, decision: Decision | None = None
) -> Cleaned:
    """Find text, blank what is certain, and stop where a person must look.

    Args:
        pixels: stored values, [rows, columns] or [frames, rows, columns]; not changed.
        source: the image's header as it came.
        settings: of the site.
        decision: of a person who looked at this image; None: nobody has.

    Raises:
        TextReview: `review-text`, with the places.
        FileRefused: `review-reader`, when there is something to read and no reader.
    """
    stack = pixels[None] if pixels.ndim == 2 else pixels
    asked = _asked(source, settings, decision, stack.shape)
    ground = _background(stack, source)
    named = _blanked(stack, asked, ground)
    if settings.burned_in_text == "ignore":
        return Cleaned(named.reshape(pixels.shape), blanked=asked, searched=False)
    waived = decision is not None and REVIEW_TEXT in decision.waive
    header = _window(source)
    first = _LOOKER.look(list(named), header)
    hits = _hits(first)
    if _open(hits) and not waived:
        raise TextReview.at(_places(hits))
    found = tuple(_wider(hit.box, stack.shape) for hit in hits if hit.kind == "text")
    if found:
        named = _blanked(named, found, ground)
        left = _hits(_LOOKER.look(list(named), header))
        if any(hit.kind != "marker" for hit in left) and not waived:
            raise TextReview.at(_places((*hits, *left)))
    return Cleaned(named.reshape(pixels.shape), hits, (*asked, *found))


def words_in(pixels: Pixels) -> frozenset[str]:
    """Everything that can be read in pixels, case folded, however unsurely; for the second scan only.

    Args:
        pixels: stored values as they were written, [rows, columns] or [frames, rows, columns].

    Raises:
        FileRefused: `review-reader`, when there is something to read and no reader.
    """
    seen = _LOOKER.look([pixels] if pixels.ndim == 2 else list(pixels))
    return frozenset(word for one in seen for word in one.words)


def _hits(seen: Iterable[Seen]) -> tuple[Hit, ...]:
    return tuple(hit for one in seen for hit in one.hits)


def _open(hits: Iterable[Hit]) -> bool:
    return any(hit.kind == "unread" for hit in hits)


def _places(hits: Iterable[Hit]) -> tuple[Box, ...]:
    return tuple(dict.fromkeys(hit.box for hit in hits if hit.kind != "marker"))


def _asked(
    source: Dataset, settings: DeidSettings, decision: Decision | None, shape: Sequence[int]
) -> tuple[Box, ...]:
    region = region_of(source, settings)
    fixed = boxes_of(region, shape[0]) if region is not None else ()
    return (*fixed, *(decision.blank if decision is not None else ()))


def _wider(box: Box, shape: Sequence[int]) -> Box:
    """With a margin, wider along the line: its last letters are the first that are not read."""
    tall, wide = box.bottom - box.top, box.right - box.left
    thick = min(tall, wide)
    across, along = max(LEAST_MARGIN, round(MARGIN * thick)), max(LEAST_MARGIN, round(ALONG * thick))
    down, aside = (along, across) if tall > TURNED * wide else (across, along)
    return Box(
        box.frame,
        max(0, box.top - down),
        max(0, box.left - aside),
        min(shape[1], box.bottom + down),
        min(shape[2], box.right + aside),
    )


def _background(stack: Pixels, source: Dataset) -> int:
    """The stored value that is shown darkest of those that occur."""
    inverse = str(source.get("PhotometricInterpretation") or "").strip(" \0") == "MONOCHROME1"
    return int(stack.max() if inverse else stack.min())


def _blanked(stack: Pixels, boxes: Sequence[Box], ground: int) -> Pixels:
    if not boxes:
        return stack
    copy = stack.copy()
    for box in boxes:
        if 0 <= box.frame < len(copy):
            copy[box.frame, max(0, box.top) : max(0, box.bottom), max(0, box.left) : max(0, box.right)] = (
                ground
            )
    return copy


def _window(source: Dataset) -> Window | None:
    """The first window of the header in stored values; None where it has none that can be used."""
    try:
        centre, width = (_first(source.get(k)) for k in ("WindowCenter", "WindowWidth"))
        slope, intercept = _first(source.get("RescaleSlope", 1)), _first(source.get("RescaleIntercept", 0))
        low, high = ((centre + side * width / 2 - intercept) / slope for side in (-1, 1))
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return (low, high) if np.isfinite(low) and np.isfinite(high) and low < high else None


def _first(value: Any) -> float:
    return float(value if isinstance(value, (str, int, float)) else value[0])
