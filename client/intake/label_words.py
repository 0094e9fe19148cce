"""Who said a label, and in which version: short words of a narrow form, and few of them in one table.

Both are stored with the label and stand in the hospital's own report. Free text typed there could carry a patient's name,
and a column filled patient by patient would; a reader and an edition need neither.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 32
"""Different sources, or versions, in one table; more are no readers and no editions."""
SOURCE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,23}")
VERSION: Final = re.compile(r"[a-z]{0,4}[0-9]{1,8}[a-z]?([.-][a-z0-9]{1,4}){0,3}")
"""1, v2, 1.10, 2024-05-01, 3b, 2.0-rc1."""
_BLANKS: Final = re.compile(r"\s+")


def plain_source(text: str) -> str | None:
    """A source in small letters with hyphens for blanks; None where it is no such word."""
    word = _BLANKS.sub("-", text.strip().casefold())
    return word if SOURCE.fullmatch(word) else None


def plain_version(text: str) -> str | None:
    """A version in small letters; None where it begins with no number or holds more than an edition needs."""
    word = text.strip().casefold()
    return word if VERSION.fullmatch(word) else None
