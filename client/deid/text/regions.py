"""Scanners whose text always stands in the same places, as the hospital's settings name them."""

from __future__ import annotations

from pydicom.dataset import Dataset

from client.deid.settings import DeidSettings, Region
from client.deid.text.found import Box


def region_of(ds: Dataset, settings: DeidSettings) -> Region | None:
    """The entry of `[[deid.regions]]` that names this image's scanner and size; None where there is none.

    Every field must be equal: an image of another size has its text elsewhere.
    """
    if not settings.regions:
        return None
    said = tuple(
        str(ds.get(k) or "").strip(" \0") for k in ("Modality", "Manufacturer", "ManufacturerModelName")
    )
    try:
        size = (int(ds.Rows), int(ds.Columns))
    except (AttributeError, TypeError, ValueError):
        return None
    for region in settings.regions:
        named = (region.modality, region.manufacturer, region.model)
        if all(said) and said == named and size == (region.rows, region.cols):
            return region
    return None


def boxes_of(region: Region, frames: int) -> tuple[Box, ...]:
    """The places to blank, in every one of so many frames."""
    return tuple(Box(frame, *box) for frame in range(frames) for box in region.boxes)
