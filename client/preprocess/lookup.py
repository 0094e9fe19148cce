"""DICOM lookup tables (PS3.3 C.11.1 and C.11.2), read once and applied by indexing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from common.errors import FileRefused

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Table:
    """A lookup table: the first stored value it maps, its depth in bits, and its entries (uint8 or uint16)."""

    first: int
    bits: int
    entries: npt.NDArray[Any]


def read_table(ds: Dataset, item: Dataset) -> Table:
    """The table of one sequence item of `ds`, which knows the byte order.

    Raises:
        FileRefused: `lut-broken` when descriptor and data do not agree.
    """
    try:
        count, first, bits = (int(v) for v in item.LUTDescriptor)
        entries = _entries(ds, item, count or 2**16, 8 if bits == 8 else 16)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise FileRefused(
            "an image",
            "its lookup table and the description of it do not agree",
            "Ask the sender for a consistent file",
            code="lut-broken",
        ) from None
    return Table(first, bits, entries)


def _entries(ds: Dataset, item: Dataset, count: int, width: int) -> npt.NDArray[Any]:
    raw = item["LUTData"].value
    if isinstance(raw, bytes):
        little = ds.file_meta.TransferSyntaxUID.is_little_endian if hasattr(ds, "file_meta") else True
        values = np.frombuffer(raw, "<u2" if little else ">u2")[:count]
    else:
        values = np.asarray([raw] if isinstance(raw, int) else raw)[:count]
    if len(values) != count or values.min() < 0 or values.max() >= 2**width:
        raise ValueError("entries")
    return values.astype(np.uint8 if width == 8 else np.uint16)


def apply_table(samples: npt.NDArray[Any], table: Table) -> npt.NDArray[Any]:
    """Map every sample; below the first mapped value the first entry holds, above the last the last."""
    place = samples.astype(np.int64) - table.first
    np.clip(place, 0, len(table.entries) - 1, out=place)
    return table.entries[place]
