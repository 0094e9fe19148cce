"""From a de-identified file to its stored sample values.

Intake has decoded every incoming file already, under limits of memory and time, and written grey
values uncompressed (`client.deid.pixels`); what is read here is our own. Compressed files of others
are read too, as far as pydicom's decoders go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from common.errors import FileRefused

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def stored(ds: Dataset) -> npt.NDArray[Any]:
    """The stored values of a grey image, without any transform: [rows, columns] or [frames, rows, columns].

    Raises:
        FileRefused: `pixels-colour`, `pixels-undecodable`.
    """
    if int(ds.get("SamplesPerPixel") or 1) != 1 or ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise FileRefused("an image", "it is in colour", "Send grey images only", code="pixels-colour")
    try:
        array: npt.NDArray[Any] = ds.pixel_array
    except Exception as error:  # noqa: BLE001 (decoders raise what they like; it is this file's fault)
        raise FileRefused(
            "an image",
            f"its pixels cannot be decoded ({type(error).__name__})",
            "Ask the sender for the file as Explicit VR Little Endian",
            code="pixels-undecodable",
        ) from None
    return array


def sample_range(ds: Dataset) -> tuple[int, int]:
    """Smallest and largest value that `BitsStored` and `PixelRepresentation` can say."""
    bits = int(ds.BitsStored)
    if int(ds.PixelRepresentation):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
