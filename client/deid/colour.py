"""Colour images of ultrasound and secondary capture to greyscale: luma of ITU-R BT.601 in 8 bits, MONOCHROME2.

A Doppler's colours are lost by this, and the documents say so; what trains on these images sees brightness.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder

from common.errors import FileRefused

LUMA: Final = (0.299, 0.587, 0.114)
"""Of red, green and blue; ITU-R BT.601-7, 2.5.1."""
TRUE_COLOUR: Final = frozenset(
    ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
)
PALETTE: Final = "PALETTE COLOR"


def interpretation(ds: Dataset) -> str:
    """What the samples mean, as the image says it."""
    return str(ds.get("PhotometricInterpretation") or "").strip(" \0").upper()


def is_colour(ds: Dataset) -> bool:
    """Whether an image says that it is in colour, by samples or by palette."""
    kind, samples = interpretation(ds), ds.get("SamplesPerPixel", 1)
    return (kind in TRUE_COLOUR and samples == 3) or (kind == PALETTE and samples == 1)


def luma(ds: Dataset) -> npt.NDArray[np.uint8]:
    """[rows, columns] or [frames, rows, columns] of a colour image whose size was checked.

    Raises:
        FileRefused: `pixel-decode`, `pixel-colour` where it has more than 8 bits a colour.
    """
    pixels = _decoded(ds)
    if interpretation(ds) == PALETTE:
        pixels = _from_palette(ds, pixels)
    if pixels.dtype.itemsize != 1 or pixels.shape[-1] != 3:
        raise FileRefused(
            "an image", "its colours have more than 8 bits", "Export it in greyscale", code="pixel-colour"
        )
    flat = pixels.reshape(-1, pixels.shape[-3] * pixels.shape[-2], 3)
    grey = np.stack([np.rint(frame @ np.asarray(LUMA, np.float32)) for frame in flat])
    return grey.astype(np.uint8).reshape(pixels.shape[:-1])


def describe_as_grey(ds: Dataset) -> None:
    """Change the header of a colour image so that it describes what `luma` returned; call it after decoding."""
    if is_colour(ds):
        ds.PhotometricInterpretation, ds.SamplesPerPixel = "MONOCHROME2", 1
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation = 7, 0


def _decoded(ds: Dataset) -> npt.NDArray[Any]:
    """Red, green and blue, or a palette's numbers; foreign decoders raise their own kinds."""
    try:
        pixels: npt.NDArray[Any] = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, raw=False)[0]
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 (pydicom's codecs raise their own kinds)
        raise _undecodable() from None
    return pixels


def _from_palette(ds: Dataset, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        colours: npt.NDArray[Any] = apply_color_lut(pixels, ds)[..., :3]
        bits = int(ds.RedPaletteColorLookupTableDescriptor[2])
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 (a broken palette raises whatever it meets)
        raise _undecodable() from None
    return colours if colours.dtype.itemsize == 1 else (colours >> max(0, bits - 8)).astype(np.uint8)


def _undecodable() -> FileRefused:
    return FileRefused(
        "an image", "no decoder can read its pixels", "Export it uncompressed", code="pixel-decode"
    )
