"""From modality units to what a radiologist would be shown: VOI lookup table or window, dark to bright.

Windows and tables are equal to `pydicom.pixels.apply_voi_lut` wherever that is defined. Where it is not:

- a window that cannot be (a width of zero, an empty or non-numeric centre, an unknown function) is a
  hint of a broken display setting, not of broken pixels: it is passed over as if it were not there;
- a window index that the file does not have is the caller's mistake: `FileRefused`, `window-index`;
- MONOCHROME1 (bright means dark, which `apply_voi_lut` leaves) is turned round within its output range.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client.preprocess.lookup import Table, apply_table, read_table
from client.preprocess.modality import rescale
from client.preprocess.samples import sample_range
from common.errors import FileRefused

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class DisplayWindow:
    """A window in modality units and the function that runs through it (PS3.3 C.11.2.1.2 and .3)."""

    centre: float
    width: float
    function: str = "LINEAR"


def presentation(ds: Dataset, pixels: npt.NDArray[Any], window_index: int = 0) -> npt.NDArray[np.float64]:
    """What is shown: VOI table if there is one, else window, else the units themselves; always MONOCHROME2.

    Args:
        ds: the image the pixels come from.
        pixels: [rows, columns] or [frames, rows, columns] in modality units.
        window_index: which of several tables or windows.

    Raises:
        FileRefused: `window-index`, `lut-broken`, `rescale-empty`, `rescale-zero`.
    """
    table = voi_table(ds, window_index)
    window = None if table is not None else voi_window(ds, window_index)
    if table is not None:
        shown = apply_table(pixels, table).astype(np.float64)
        low, high = 0.0, float(2**table.bits - 1)
    else:
        low, high = output_range(ds)
        shown = pixels.astype(np.float64) if window is None else apply_window(pixels, window, (low, high))
    return invert(shown, low, high) if is_inverted(ds) else shown


def is_inverted(ds: Dataset) -> bool:
    """Whether small values are meant to be bright (MONOCHROME1)."""
    return bool(ds.get("PhotometricInterpretation") == "MONOCHROME1")


def invert(pixels: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Turn bright and dark round within [low, high]; done twice, it gives the pixels back."""
    return (low + high) - pixels


def voi_table(ds: Dataset, index: int = 0) -> Table | None:
    """The VOI lookup table number `index`, or None where the file has none.

    Raises:
        FileRefused: `window-index` or `lut-broken`.
    """
    items = ds.get("VOILUTSequence")
    if not items or any(items[0].get(name) is None for name in ("LUTDescriptor", "LUTData")):
        return None
    _check_index(index, len(items))
    return read_table(ds, items[index])


def voi_window(ds: Dataset, index: int = 0) -> DisplayWindow | None:
    """The window number `index`, or None where the file has none that can be applied.

    Raises:
        FileRefused: `window-index`.
    """
    centres, widths = _values(ds, "WindowCenter"), _values(ds, "WindowWidth")
    if not centres or not widths:
        return None
    _check_index(index, max(len(centres), len(widths)))
    # one centre with several widths, or the reverse, holds for all of them, as pydicom reads it
    centre = _number(centres[index if len(centres) > 1 else 0]) if _fits(index, centres) else math.nan
    width = _number(widths[index if len(widths) > 1 else 0]) if _fits(index, widths) else math.nan
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    least = 1.0 if function == "LINEAR" else math.ulp(0.0)
    if function not in FUNCTIONS or not math.isfinite(centre) or not width >= least or math.isinf(width):
        return None
    return DisplayWindow(centre, width, function)


def output_range(ds: Dataset) -> tuple[float, float]:
    """The range a window is spread over: what stored values can reach, in modality units."""
    if ds.get("ModalityLUTSequence"):
        return 0.0, float(2 ** read_table(ds, ds.ModalityLUTSequence[0]).bits - 1)
    low, high = (float(v) for v in sample_range(ds))
    line = rescale(ds)
    return (low, high) if line is None else (low * line[0] + line[1], high * line[0] + line[1])


def apply_window(
    pixels: npt.NDArray[Any], window: DisplayWindow, output: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Spread a window over `output`; the formulas of PS3.3 C.11.2.1.2.1 and C.11.2.1.3.

    Args:
        pixels: any shape, modality units.
        window: LINEAR needs a width of 1 or more, the others more than 0.
        output: (lowest, highest) value of the result.
    """
    low, high = output
    x = pixels.astype(np.float64)
    if window.function == "SIGMOID":
        with np.errstate(
            over="ignore"
        ):  # far below the window exp overflows to inf, and 1/inf is the 0 wanted
            return (high - low) / (1 + np.exp(-4 * (x - window.centre) / window.width)) + low
    linear = window.function == "LINEAR"
    centre = window.centre - 0.5 if linear else window.centre
    width = window.width - 1 if linear else window.width
    below = x <= centre - width / 2
    above = x > centre + width / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # width 1 is a step: nothing lies between
        spread = ((x - centre) / width + 0.5) * (high - low) + low
    return np.where(below, low, np.where(above, high, spread))


def _values(ds: Dataset, name: str) -> list[Any]:
    value = ds.get(name)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MutableSequence, tuple)) else [value]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _fits(index: int, values: list[Any]) -> bool:
    return len(values) == 1 or index < len(values)


def _check_index(index: int, count: int) -> None:
    if not 0 <= index < count:
        raise FileRefused(
            "an image",
            f"it has {count} windows or tables, number {index} was asked for",
            "Ask for number 0",
            code="window-index",
        )
