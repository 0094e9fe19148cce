"""From stored values to modality units: rescale (Hounsfield units for CT) or modality lookup table.

Equal to `pydicom.pixels.apply_modality_lut` wherever that is defined. Where it is not:

- a slope or intercept that is present but empty, or not a finite number: `FileRefused`, `rescale-empty`;
- a slope of zero, which would silently give one grey: `FileRefused`, `rescale-zero`;
- enhanced multi-frame objects, on which pydicom does nothing: each frame's own functional group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.preprocess.lookup import apply_table, read_table
from common.errors import FileRefused

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_EXACT: Final = 2**24
"""Whole numbers below it are themselves in float32."""


def to_units(ds: Dataset, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored values to modality units, shape kept; float64 after a rescale, else the samples' own type.

    Raises:
        FileRefused: `rescale-empty`, `rescale-zero`, `lut-broken`.
    """
    if ds.get("ModalityLUTSequence"):
        return apply_table(samples, read_table(ds, ds.ModalityLUTSequence[0]))
    if "SharedFunctionalGroupsSequence" in ds:
        return _per_frame(ds, samples)
    return _rescaled(ds, samples)


def to_units32(ds: Dataset, samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """`to_units` in float32, to the bit; without the way over float64 where that changes nothing.

    Whole numbers below 2^24 are exact in float32, and so are their products and sums that stay below it.

    Raises:
        FileRefused: as `to_units`.
    """
    if not ds.get("ModalityLUTSequence") and "SharedFunctionalGroupsSequence" not in ds:
        line = rescale(ds) or (1.0, 0.0)
        largest = abs(line[0]) * 2 ** (8 * samples.dtype.itemsize) + abs(line[1])
        if all(number.is_integer() for number in line) and largest < _EXACT:
            exact = samples.astype(np.float32)
            if line[0] != 1:
                exact *= np.float32(line[0])
            if line[1]:
                exact += np.float32(line[1])
            return exact
    return to_units(ds, samples).astype(np.float32)


def _rescaled(ds: Dataset, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    line = rescale(ds)
    if line is None:
        return samples
    slope, intercept = line
    units = samples.astype(np.float64) * slope
    units += intercept
    return units


def _per_frame(ds: Dataset, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    transforms = [_transform_of(group) for group in frame_groups(ds, "PixelValueTransformationSequence")]
    if samples.ndim == 2:
        return _rescaled(transforms[0], samples) if transforms else samples
    if len(transforms) != len(samples):
        raise FileRefused(
            "an image",
            "its functional groups do not match its frames",
            "Ask the sender for a consistent file",
            code="frames-inconsistent",
        )
    return np.stack([_rescaled(t, frame) for t, frame in zip(transforms, samples, strict=True)])


def _transform_of(group: Dataset | None) -> Dataset:
    from pydicom.dataset import Dataset  # noqa: PLC0415 - slow to import

    return Dataset() if group is None else group


def frame_groups(ds: Dataset, name: str) -> Iterator[Dataset | None]:
    """For each frame of an enhanced object, its functional group `name`: its own, else the shared one."""
    shared_items = ds.get("SharedFunctionalGroupsSequence") or [{}]
    shared = shared_items[0].get(name)
    frames = ds.get("PerFrameFunctionalGroupsSequence") or [{}] * int(ds.get("NumberOfFrames") or 1)
    for frame in frames:
        own = frame.get(name) or shared
        yield own[0] if own else None


def rescale(ds: Dataset) -> tuple[float, float] | None:
    """(slope, intercept), or None where either is absent: then stored values are the units.

    Raises:
        FileRefused: `rescale-empty` or `rescale-zero`.
    """
    if "RescaleSlope" not in ds or "RescaleIntercept" not in ds:
        return None
    try:
        slope, intercept = float(ds.RescaleSlope), float(ds.RescaleIntercept)
    except (TypeError, ValueError):
        slope = intercept = math.nan
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise FileRefused(
            "an image",
            "its rescale slope or intercept is empty or not a number",
            "Ask the sender to fill both; units cannot be guessed",
            code="rescale-empty",
        )
    if slope == 0:
        raise FileRefused(
            "an image",
            "its rescale slope is zero, which makes every pixel equal",
            "Ask the sender for the true slope",
            code="rescale-zero",
        )
    return slope, intercept
