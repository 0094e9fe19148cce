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


def is_marker(text: str) -> bool:
    """Whether every word of a text is a listed marker, however it is set; false for a text without a word."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=\w)[-./](?=\w)", "", text.casefold()))
    return bool(words) and all(word in MARKERS or word.translate(MISREAD) in MARKERS for word in words)
