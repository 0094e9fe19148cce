"""From a DICOM object to the array a network sees, as the plan's `input` section asks.

1. decode to modality units; padding pixels take the least true value;
2. radiographs (CR, DX, MG, ...) are shown as their file says: VOI table or first window. CT stays in Hounsfield
   units and MR in its own, because their windows are a reader's choice, not the scanner's;
3. MONOCHROME1 is turned round: bright is dense everywhere;
4. fitted into the grid with the anatomy's aspect (pixel spacing) kept;
5. normalised by statistics of the image alone, then padded with its darkest value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.preprocess.harmonise import to_landmarks, to_spectrum
from client.preprocess.modality import to_units
from client.preprocess.presentation import (
    DisplayWindow,
    apply_window,
    invert,
    is_inverted,
    output_range,
    presentation,
)
from client.preprocess.resample import fit, pad
from client.preprocess.samples import stored
from common.errors import FileRefused
from common.plan import Input

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

VERSION: Final = 1
"""Raised whenever the same file would give another array; part of every store's digest."""

UNITS_MATTER: Final = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose values mean something without a display window."""

EQUALISE_BINS: Final = 4096


def decode(ds: Dataset) -> npt.NDArray[np.float32]:
    """Pixels in modality units, float32 [rows, columns] or [frames, rows, columns].

    Raises:
        FileRefused: with the code of what is wrong; see `samples` and `modality`.
    """
    return decode_exact(ds).astype(np.float32)


def decode_exact(ds: Dataset) -> npt.NDArray[Any]:
    """As `decode`, in the type the arithmetic gives (float64 after a rescale); for further arithmetic."""
    return to_units(ds, stored(ds))


def to_tensor(ds: Dataset, spec: Input) -> npt.NDArray[np.float32]:
    """One image as the network sees it: float32 [rows, columns] of `spec.shape`, finite.

    Of several frames the middle one is taken. Normalisations: `zscore` (mean 0, standard deviation 1;
    a constant image gives 0), `minmax` and `equalise` [0, 1], `window` [0, 1] over `spec.window` in modality units,
    `histogram` and `amplitude` as `client.preprocess.harmonise` has them.

    Raises:
        FileRefused: the image cannot be decoded or shown; see the code.
    """
    samples = stored(ds)
    units = to_units(ds, samples)
    blank = _padding(ds, samples)
    if units.ndim == 3:
        middle = len(units) // 2
        units, blank = units[middle], None if blank is None else blank[middle]
    image = _bright_is_dense(ds, units, spec)
    if not np.isfinite(image).all():
        raise FileRefused(
            "an image", "it holds values that are not numbers", "Exclude it", code="pixels-not-finite"
        )
    if blank is not None and not blank.all():
        image[blank] = image[~blank].min()
    grid = (spec.shape[-2], spec.shape[-1])
    small = fit(image, grid, pixel_aspect(ds))
    normal = normalise(small, spec)
    return pad(normal, grid, float(normal.min())).astype(np.float32)


def normalise(image: npt.NDArray[np.float64], spec: Input) -> npt.NDArray[np.float64]:
    """Bring one image, any shape, to the range the plan asks for; a constant image gives zeros."""
    if spec.normalisation == "window" and spec.window is not None:
        window = DisplayWindow(spec.window.centre, spec.window.width, "LINEAR_EXACT")
        return apply_window(image, window, (0.0, 1.0))
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.zeros_like(image)
    if spec.normalisation == "histogram":
        return to_landmarks(image)
    if spec.normalisation == "amplitude":
        return to_spectrum(image)
    if spec.normalisation == "zscore":
        standard: npt.NDArray[np.float64] = (image - image.mean()) / image.std()
        return standard
    scaled = (image - low) / (high - low)
    return equalise(scaled) if spec.normalisation == "equalise" else scaled


def equalise(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Histogram equalisation of values in [0, 1]: each becomes the share of pixels not brighter.

    The darkest pixels map to 0 and the brightest to 1; order is kept, up to `EQUALISE_BINS` levels.
    """
    level = np.minimum((image * EQUALISE_BINS).astype(np.int64), EQUALISE_BINS - 1)
    count = np.bincount(level.ravel(), minlength=EQUALISE_BINS)
    share = np.cumsum(count)
    darkest = share[level.min()]
    if darkest == share[-1]:
        return np.zeros_like(image)
    return np.asarray((share[level] - darkest) / (share[-1] - darkest), dtype=np.float64)


def pixel_aspect(ds: Dataset) -> float:
    """Height of a pixel divided by its width, from spacing or aspect; 1 where unknown or absurd."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        try:
            height, width = (float(v) for v in ds.get(name) or ())
        except (TypeError, ValueError):
            continue
        if min(height, width) > 0 and 0.1 <= height / width <= 10:
            return height / width
    return 1.0


def _bright_is_dense(ds: Dataset, units: npt.NDArray[Any], spec: Input) -> npt.NDArray[np.float64]:
    if spec.normalisation == "window" or ds.get("Modality") in UNITS_MATTER:
        image = units.astype(np.float64)
        return invert(image, *output_range(ds)) if is_inverted(ds) else image
    return presentation(ds, units)


def _padding(ds: Dataset, samples: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where the file says that there is no image (PixelPaddingValue and its range limit)."""
    first = ds.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    last = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((first, last if isinstance(last, int) else first))
    mask: npt.NDArray[np.bool_] = (samples >= low) & (samples <= high)
    return mask if mask.any() else None
