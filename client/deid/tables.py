"""Lookup tables that are tables: as many entries as announced, rising or falling, and so no place for letters."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

_LARGEST: Final = 2**16
"""Entries of a table whose descriptor says 0 (PS3.3 C.11.1.1)."""


def is_table(item: Dataset) -> bool:
    """Whether the entries of an item are a table and nothing else.

    A grey-scale table maps darker to darker, or the other way round; text that is read as numbers does neither. What
    stands behind the last entry would be kept unseen.

    Args:
        item: of a modality or VOI LUT sequence, with its binaries in little endian.
    """
    try:
        count, bits = int(item.LUTDescriptor[0]) or _LARGEST, int(item.LUTDescriptor[2])
        entries = _entries(item["LUTData"].value, bits, count)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False
    if entries.size != count or not 1 <= bits <= 16 or int(entries.max()) >> bits:
        return False
    steps = np.diff(entries.astype(np.int32))
    return bool((steps >= 0).all() or (steps <= 0).all())


def _entries(value: Any, bits: int, count: int) -> npt.NDArray[np.integer[Any]]:
    """The entries, [count]; tables of eight bits may hold two of them in a word."""
    if not isinstance(value, bytes):
        return np.atleast_1d(np.asarray(value, dtype=np.int64))
    if bits <= 8 and len(value) == count + count % 2:
        packed = np.frombuffer(value, dtype=np.uint8)
        return packed[:count] if not packed[count:].any() else packed[:0]
    return np.frombuffer(value, dtype="<u2")
