"""Markers of side and position that a radiograph should show: they name no one and stay.

A technologist's initials are not in the list: they can name a person.
"""

from __future__ import annotations

import re
from typing import Final

MARKERS: Final = frozenset(
    (
        "L R LT RT LEFT RIGHT AP PA LAT LATERAL LL RL LLD RLD LPO RPO LAO RAO OBL OBLIQUE DECUB DECUBITUS UP UPRIGHT "
        "ERECT SEMIERECT SUPINE PRONE SITTING STANDING RECUMBENT PORTABLE PORT MOBILE BEDSIDE CXR CHEST INSP INSPIRATION "
        "EXP EXPIRATION WB NWB WEIGHTBEARING STRESS FLEX FLEXION EXT EXTENSION H F A P S I HF FF HEAD FEET SEMI WEIGHT "
        "BEARING"
    )
    .casefold()
    .split()
)
"""Without signs between the letters; A, P, H, F, S, I are the letters of orientation of CT and MR."""
MISREAD: Final = str.maketrans({"0": "o", "1": "i", "5": "s", "|": "i"})
"""What a reader makes of letters; only tried on words that are not in the list as read."""


LEAST_PART: Final = 4
LOST: Final = 2
"""Letters of a marker that may be missing at one end, when so many of its letters are left."""


def is_marker(text: str) -> bool:
    """Whether every word of a text is a listed marker, however it is set; false for a text without a word."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=\w)[-./](?=\w)", "", text.casefold()))
    return bool(words) and all(_listed(word) or _listed(word.translate(MISREAD)) for word in words)


def _listed(word: str) -> bool:
    """A marker, or most of a long one whose first or last letters were not read."""
    if len(word) < LEAST_PART:
        return word in MARKERS
    return any(
        word == one or (len(one) - len(word) <= LOST and (one.startswith(word) or one.endswith(word)))
        for one in MARKERS
    )
