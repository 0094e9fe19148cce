"""What a person may say when they decide about a refused image: a reason of a short list, a slug, places to blank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from client.deid.pixels import MAX_SIDE
from client.deid.text.found import Box
from common.errors import InputError

RELEASE: Final = {
    "nothing-there": "nothing stands there",
    "blanked": "what identifies was blanked",
    "harmless": "it identifies nobody",
    "quality-fine": "good enough to be read",
}
"""Why an image is released."""
DISCARD: Final = {
    "identifies": "it shows who it is",
    "unusable": "it is unusable",
    "not-wanted": "not of this study",
    "other": "another reason",
}
"""Why an original is discarded."""
_NOTE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
_MOST_BOXES: Final = 20_000
"""A box in each of many frames is as many boxes."""


@dataclass(frozen=True)
class Reason:
    """Why a person decides so: a fixed word, and a slug of their own, such as the number of a ticket."""

    code: str
    note: str = ""


def check_reason(reason: Reason, known: dict[str, str]) -> None:
    """Check what a person gives as the reason.

    Raises:
        InputError: `release-reason` or `release-note`.
    """
    if reason.code not in known:
        raise InputError(
            "the reason", f"it is one of {', '.join(known)}", "Choose one", code="release-reason"
        )
    if reason.note and not _NOTE.fullmatch(reason.note):
        raise InputError(
            "the note",
            "it is made of at most 24 of a-z, 0-9 and hyphen, and is written into the audit log",
            "Give the number of a ticket, for instance, and nothing of a patient",
            code="release-note",
        )


def check_boxes(boxes: Sequence[Box]) -> None:
    """Check the places to blank before anything is done with them.

    Raises:
        InputError: `release-box`.
    """
    whole = all(
        box.frame >= 0 and 0 <= box.top < box.bottom <= MAX_SIDE and 0 <= box.left < box.right <= MAX_SIDE
        for box in boxes
    )
    if not whole or len(boxes) > _MOST_BOXES:
        raise InputError(
            "a box to blank",
            f"it lies within {MAX_SIDE} pixels and is not empty, and there are at most {_MOST_BOXES}",
            "Draw it again",
            code="release-box",
        )
