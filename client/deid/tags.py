"""Tags as pydicom has them, each made once: a dictionary finds the same object without comparing."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pydicom.tag import BaseTag

_KINDS: Final = 8192
"""Tags remembered; a hostile file may hold any number of them."""


@lru_cache(maxsize=_KINDS)
def tag(number: int) -> BaseTag:
    """The tag of a number: group, then element, 16 bits each."""
    return BaseTag(number)
