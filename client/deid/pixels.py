"""Pixels out of an untrusted file: sizes checked before anything is allocated, then stored values only.

What comes back are the stored values of the image and nothing else: bits outside BitsStored (old
overlays hide there), bytes after the last frame and comments of the codec are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
    UncompressedTransferSyntaxes,
)

from client.deid.codecs import Codestream, decode_with_gdcm
from client.deid.colour import interpretation, is_colour, luma
from common.errors import FileRefused

MAX_SIDE: Final = 16_384
"""Pixels; the largest flat-panel and mammography detectors stay below 8,192."""
MAX_PIXEL_BYTES: Final = 256 * 2**20
"""Of one decoded object; a worker's memory limit leaves room for three copies of it."""
OLD_JPEG: Final = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")
"""Spectral selection and full progression: retired, and still in archives."""
JPEG_FAMILY: Final = frozenset(
    (*OLD_JPEG, *JPEGTransferSyntaxes, *JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
)
COSINE: Final = frozenset((*OLD_JPEG, JPEGBaseline8Bit, JPEGExtended12Bit))
"""Lossy JPEG: beside an edge its decoder rings, and may come out above the highest value there is."""
RINGING: Final = 0.25
"""Share of the range by which a decoder may ring over the top; more is something else than the image."""
READABLE: Final = JPEG_FAMILY | frozenset((*UncompressedTransferSyntaxes, *RLETransferSyntaxes))
_END_OF_IMAGE: Final = b"\xff\xd9"
_PADDING: Final = 16
"""Bytes within which a codestream ends; senders pad with 00 or FF."""


@dataclass(frozen=True)
class Layout:
    """How stored values lie in a file: counts of pixels, frames and bits."""

    frames: int
    rows: int
    cols: int
    allocated: int
    stored: int
    high: int
    signed: bool
    samples: int = 1
    """Of a pixel: 3 in colour."""

    @property
    def bytes(self) -> int:
        """Size of all frames, in bytes."""
        return self.frames * self.rows * self.cols * self.samples * self.allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian integer type of a stored value."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")


def layout(ds: Dataset, *, colour: bool = False) -> Layout:
    """Read the layout of the pixels and refuse what cannot or may not be decoded.

    Args:
        ds: a data set as read from a file.
        colour: whether this kind of image may be in colour.

    Raises:
        FileRefused: `pixel-missing`, `pixel-colour`, `pixel-bits`, `pixel-size`.
    """
    if "PixelData" not in ds or not len(ds.get_item("PixelData").value or b""):
        raise _refused("pixel-missing", "it has no pixel data", "Export the image itself")
    grey = ds.get("SamplesPerPixel", 1) == 1 and interpretation(ds).startswith("MONOCHROME")
    if not grey and not (colour and is_colour(ds)):
        raise _refused("pixel-colour", "only greyscale images are taken in", "Leave colour images out")
    try:
        found = Layout(
            frames=int(ds.get("NumberOfFrames") or 1),
            rows=int(ds.Rows),
            cols=int(ds.Columns),
            allocated=int(ds.BitsAllocated),
            stored=int(ds.BitsStored),
            high=int(ds.get("HighBit", ds.BitsStored - 1)),
            signed=bool(int(ds.PixelRepresentation)),
            samples=1 if grey else int(ds.get("SamplesPerPixel", 1)),
        )
    except (AttributeError, TypeError, ValueError):
        raise _refused(
            "pixel-bits", "its description of the pixels is incomplete", "Export it again"
        ) from None
    return _possible(found)


def _possible(found: Layout) -> Layout:
    bits = (found.allocated in (8, 16), 1 <= found.stored <= found.allocated)
    if not all(bits) or not found.stored - 1 <= found.high < found.allocated:
        raise _refused("pixel-bits", "it stores pixels in a way that images do not", "Export it again")
    sides = min(found.rows, found.cols, found.frames) >= 1 and max(found.rows, found.cols) <= MAX_SIDE
    if not sides or found.bytes > MAX_PIXEL_BYTES:
        raise _refused(
            "pixel-size",
            f"an image has at most {MAX_SIDE} pixels a side and {MAX_PIXEL_BYTES >> 20} MiB in all",
            "Check the file at its source; split very long series of frames",
        )
    return found


def decode(ds: Dataset, *, colour: bool = False) -> npt.NDArray[np.integer[Any]]:
    """Stored values, [rows, columns] or [frames, rows, columns], in 8 or 16 bits, little endian.

    Args:
        ds: a data set as read from a file, with its file meta.
        colour: whether this kind of image may be in colour; it comes back as 8-bit luma then, and
            `client.deid.colour.describe_as_grey` mends the header.

    Raises:
        FileRefused: as `layout`, and `transfer-syntax`, `pixel-truncated`, `pixel-decode`.
    """
    plan = layout(ds, colour=colour)
    syntax = ds.file_meta.get("TransferSyntaxUID")
    # A damaged file meta may name several.
    if not isinstance(syntax, str) or syntax not in READABLE:
        raise _refused(
            "transfer-syntax",
            "no decoder is installed for its compression",
            "Send it uncompressed, or as JPEG, JPEG-LS, JPEG 2000 or RLE",
        )
    if is_colour(ds):
        return luma(ds)
    pixels = _native(ds, plan) if syntax in UncompressedTransferSyntaxes else _compressed(ds, plan)
    shape = (plan.rows, plan.cols) if plan.frames == 1 else (plan.frames, plan.rows, plan.cols)
    if pixels.size != plan.frames * plan.rows * plan.cols:
        raise _refused("pixel-decode", "its pixels do not fill the image it announces", "Export it again")
    rings = syntax in COSINE and not plan.signed and plan.high == plan.stored - 1
    return (within_stored if rings else only_stored_bits)(pixels.reshape(shape), plan)


def within_stored(pixels: npt.NDArray[Any], plan: Layout) -> npt.NDArray[np.integer[Any]]:
    """The same unsigned values, cut at the highest that `stored` bits hold, not wrapped from white to black.

    Raises:
        FileRefused: `pixel-bits`, when they lie too far above to come from ringing: an overlay may hide there.
    """
    top = (1 << plan.stored) - 1
    if pixels.size and int(pixels.max()) > top + RINGING * (top + 1):
        raise _refused("pixel-bits", "its pixels need more bits than it announces", "Export it uncompressed")
    cut: npt.NDArray[np.integer[Any]] = np.minimum(pixels, top).astype(plan.dtype, copy=False)
    return cut


def only_stored_bits(pixels: npt.NDArray[Any], plan: Layout) -> npt.NDArray[np.integer[Any]]:
    """The same values with every bit outside `stored` cleared, or filled with the sign."""
    bits = plan.allocated
    if plan.stored == bits:
        return pixels.astype(plan.dtype, copy=False)
    words = pixels.astype(f"<u{bits // 8}", copy=False)
    left = np.left_shift(words, bits - 1 - plan.high).astype(plan.dtype, copy=False)
    shifted: npt.NDArray[np.integer[Any]] = np.right_shift(left, bits - plan.stored)
    return shifted


def _native(ds: Dataset, plan: Layout) -> npt.NDArray[Any]:
    raw = ds.get_item("PixelData").value
    if not isinstance(raw, bytes):
        raise _refused(
            "pixel-decode", "its pixel data says that it is text", "Send the file again from its source"
        )
    if len(raw) < plan.bytes:
        raise _refused("pixel-truncated", "its pixel data ends too early", "Send the file again")
    if ds.original_encoding[1] is False:
        return _by_pydicom(ds)
    return np.frombuffer(raw, dtype=plan.dtype, count=plan.bytes * 8 // plan.allocated)


def _compressed(ds: Dataset, plan: Layout) -> npt.NDArray[Any]:
    syntax = ds.file_meta.TransferSyntaxUID
    try:
        frames = list(generate_frames(ds.PixelData, number_of_frames=plan.frames))
    except Exception:  # noqa: BLE001 (whatever a foreign parser raises here is one thing: no frames)
        frames = []
    whole = syntax not in JPEG_FAMILY or all(_END_OF_IMAGE in f[-_PADDING:] for f in frames)
    if len(frames) != plan.frames or not whole:
        raise _refused("pixel-truncated", "its compressed pixel data ends too early", "Send the file again")
    try:
        return _by_pydicom(ds)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 (pydicom's codecs raise their own kinds; 12-bit JPEG is one of them)
        return _by_gdcm(ds, plan, frames)


def _by_pydicom(ds: Dataset) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = ds.pixel_array
    return pixels


def _by_gdcm(ds: Dataset, plan: Layout, frames: list[bytes]) -> npt.NDArray[Any]:
    syntax = str(ds.file_meta.TransferSyntaxUID)
    # GDCM masks what exceeds the stored bits it is told of; a twelve-bit decoder may exceed ten by one.
    stored = plan.stored if plan.signed or syntax not in COSINE else max(plan.stored, min(12, plan.allocated))
    form = (plan.rows, plan.cols, plan.allocated, stored, plan.signed)
    decoded = [decode_with_gdcm(Codestream(frame, syntax, *form)) for frame in frames]
    if any(raw is None for raw in decoded):
        raise _refused("pixel-decode", "no decoder can read its pixels", "Export it uncompressed")
    whole = b"".join(raw for raw in decoded if raw is not None)
    if len(whole) != plan.bytes:
        raise _refused("pixel-decode", "its pixels do not fill the image it announces", "Export it again")
    return np.frombuffer(whole, dtype=plan.dtype)


def _refused(code: str, rule: str, remedy: str) -> FileRefused:
    return FileRefused("an image", rule, remedy, code=code)
