"""A PNG or JPEG radiograph as a DICOM object in memory, so that it takes the same way as the others."""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import warnings
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from client.deid.pixels import MAX_PIXEL_BYTES, MAX_SIDE
from client.intake.outcome import Person
from common.errors import FileRefused

SUFFIXES: Final = frozenset((".png", ".jpg", ".jpeg"))
_DIGITAL_XRAY: Final = "1.2.840.10008.5.1.4.1.1.1.1"
_WIDEST_SAMPLE: Final = 4
"""Bytes a pixel may take while it is decoded."""
_VIEWS: Final = frozenset(("AP", "PA", "LL", "RL", "LATERAL"))
_RANGE: Final = re.compile(r"(\d{1,3})\s*-\s*(\d{1,3})")


def wrap(data: bytes, person: Person) -> Dataset:
    """The picture as an uncompressed DX image of this person.

    Equal files of one person get equal UIDs; of two persons, different ones.

    Raises:
        FileRefused: `not-an-image`, `pixel-colour`, `pixel-size`.
    """
    pixels = _grey(data)
    ds = Dataset()
    ds.SOPClassUID = _DIGITAL_XRAY
    for kind in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(ds, kind, _uid(kind.encode(), person.patient_id.encode(), data))
    ds.Modality = "DX"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.PatientID = person.patient_id
    ds.PatientSex = {"m": "M", "f": "F", "o": "O"}.get(person.sex.strip().casefold()[:1], "")
    ds.PatientAge = _age(person.age)
    ds.ViewPosition = person.view.strip().upper() if person.view.strip().upper() in _VIEWS else ""
    _set_pixels(ds, pixels)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    return ds


def _set_pixels(ds: Dataset, pixels: npt.NDArray[np.unsignedinteger[Any]]) -> None:
    bits = pixels.dtype.itemsize * 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    raw = pixels.tobytes()
    ds.add_new("PixelData", "OW" if bits == 16 else "OB", raw + b"\0" * (len(raw) % 2))


def _grey(data: bytes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """[rows, columns] uint8 or uint16; a colour picture passes when its channels are equal."""
    image_module: Any = importlib.import_module("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = image_module.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            _check_size(picture.size)
            picture.load()
    except FileRefused:
        raise
    except Exception:  # noqa: BLE001 (a damaged picture can make the decoder raise anything)
        raise FileRefused(
            "a picture", "it cannot be read as PNG or JPEG", "Send it again", code="not-an-image"
        ) from None
    if picture.mode in ("1", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 3:
        if not (
            np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
        ):
            raise FileRefused(
                "a picture",
                "only greyscale images are taken in",
                "Leave colour images out",
                code="pixel-colour",
            )
        pixels = pixels[..., 0]
    return np.ascontiguousarray(pixels, dtype="u1" if pixels.dtype.itemsize == 1 else "<u2")


def _check_size(size: tuple[int, int]) -> None:
    """Refuse before anything is decoded; a picture of 16 MB of zeros can announce gigabytes."""
    if max(size) > MAX_SIDE or size[0] * size[1] * _WIDEST_SAMPLE > MAX_PIXEL_BYTES:
        raise FileRefused(
            "a picture", f"a side has at most {MAX_SIDE} pixels", "Scale it down", code="pixel-size"
        )


def _age(text: str) -> str:
    """Years as DICOM writes them; of a range such as 1-5 the middle, rounded down; else nothing."""
    between = _RANGE.fullmatch(text.strip())
    if between:
        years = (int(between[1]) + int(between[2])) // 2
    else:
        number = re.fullmatch(r"0*(\d{1,3})(\.\d+)?\s*[Yy]?", text.strip())
        if number is None:
            return ""
        years = int(number[1])
    return f"{years:03d}Y"


def _uid(*parts: bytes) -> str:
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
    return "2.25." + str(int.from_bytes(digest[:16], "big"))
