"""From encoded pixel data to stored sample values, for every transfer syntax a reference decoder reads."""

from __future__ import annotations

from typing import Any, Final

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_color_lut

from common.errors import FileRefused

GDCM_ONLY: Final = {
    "1.2.840.10008.1.2.4.51": "JPEG Extended, 12 bits",
    "1.2.840.10008.1.2.4.53": "JPEG Spectral Selection (retired)",
    "1.2.840.10008.1.2.4.55": "JPEG Full Progression (retired)",
}
"""Syntaxes that pydicom hands to no decoder, or not at 12 bits, while GDCM reads them; compared with
the lossless files of the same images in the multi-vendor set (correlation at least 0.997)."""

LARGEST_SAMPLES: Final = 2**28
"""Most samples of one file that are decoded: 256 Mi, about a 1000-slice CT. A header may claim more."""

LUMA: Final = (0.299, 0.587, 0.114)
"""Red, green and blue in grey; source: ITU-R BT.601."""


def stored(ds: Dataset) -> npt.NDArray[Any]:
    """The stored values of an image, without any transform.

    Returns:
        integers (or floats, for float pixel data) [rows, columns] or [frames, rows, columns]; colour
        and palette images as grey float32 levels of the same shape.

    Raises:
        FileRefused: `pixels-missing`, `pixels-too-large`, `pixels-undecodable`.
    """
    _check_size(ds)
    try:
        array = _decoded(ds)
        return _grey(ds, array)
    except FileRefused:
        raise
    except Exception as error:  # noqa: BLE001 (decoders raise what they like; it is this file's fault)
        raise FileRefused(
            "an image",
            f"its pixels cannot be decoded ({type(error).__name__})",
            "Ask the sender for the file as Explicit VR Little Endian",
            code="pixels-undecodable",
        ) from None


def _check_size(ds: Dataset) -> None:
    try:
        rows, cols = int(ds.Rows), int(ds.Columns)
        frames = int(ds.get("NumberOfFrames") or 1)
        samples = int(ds.get("SamplesPerPixel") or 1)
    except (AttributeError, TypeError, ValueError):
        rows = cols = frames = samples = 0
    has_data = any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    if not has_data or min(rows, cols, frames, samples) < 1:
        raise FileRefused(
            "an image", "it has no pixels or no size", "Send the image object itself", code="pixels-missing"
        )
    if rows * cols * frames * samples > LARGEST_SAMPLES:
        raise FileRefused(
            "an image",
            f"it claims more than {LARGEST_SAMPLES} samples",
            "Send it in parts, or exclude it",
            code="pixels-too-large",
        )


def _decoded(ds: Dataset) -> npt.NDArray[Any]:
    syntax = str(ds.file_meta.TransferSyntaxUID)
    eight_bit_extended = syntax == "1.2.840.10008.1.2.4.51" and int(ds.BitsStored) == 8
    if syntax in GDCM_ONLY and not eight_bit_extended:
        return _by_gdcm(ds, syntax)
    array: npt.NDArray[Any] = ds.pixel_array
    return array


def _by_gdcm(ds: Dataset, syntax: str) -> npt.NDArray[Any]:
    frames = int(ds.get("NumberOfFrames") or 1)
    encoded = generate_frames(ds.PixelData, number_of_frames=frames)
    images = [_gdcm_frame(ds, frame, syntax) for frame in encoded]
    return images[0] if frames == 1 else np.stack(images)


def _gdcm_frame(ds: Dataset, encoded: bytes, syntax: str) -> npt.NDArray[Any]:
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise ValueError("colour is not read in this syntax")
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    # GDCM drops bits above `BitsStored`, which turns the overshoot of a lossy decoder into black: read
    # the full precision of the code stream and clip instead.
    precision = max(bits, 12) if allocated == 16 else 8
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((int(ds.Columns), int(ds.Rows), 1))
    image.SetDataElement(_pixel_element(encoded))
    kind = gdcm.PhotometricInterpretation.GetPIType(str(ds.PhotometricInterpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, allocated, precision, precision - 1, int(ds.PixelRepresentation))
    )
    raw = image.GetBuffer().encode("utf-8", "surrogateescape")
    kind_of = np.int16 if int(ds.PixelRepresentation) else np.uint16
    values = np.frombuffer(raw, kind_of if allocated == 16 else np.uint8).reshape(
        int(ds.Rows), int(ds.Columns)
    )
    low, high = sample_range(ds)
    clipped: npt.NDArray[Any] = np.clip(values, low, high)
    return clipped


def _pixel_element(encoded: bytes) -> Any:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    return element


def sample_range(ds: Dataset) -> tuple[int, int]:
    """Smallest and largest value that `BitsStored` and `PixelRepresentation` can say."""
    bits = int(ds.BitsStored)
    if int(ds.PixelRepresentation):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _grey(ds: Dataset, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # pydicom has already made RGB of luminance and colour difference
    photometric = str(ds.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, ds)
        high = float(np.iinfo(array.dtype).max)
        array = array / high * 255.0
    elif int(ds.get("SamplesPerPixel") or 1) != 3:
        return array
    grey: npt.NDArray[np.float32] = (array[..., :3] @ np.array(LUMA)).astype(np.float32)
    return grey
