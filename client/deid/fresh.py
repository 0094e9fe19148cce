"""What every file of ours has anew, whatever its source: file meta, the layout of its pixels, the marks of its making."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian

from client.deid.encoding import element
from client.deid.methods import MEANINGS, flags
from client.deid.tags import tag
from common.errors import FileRefused

IMPLEMENTATION_UID: Final = "2.25.198211846730541987726013455870216594723"
"""Names this writer in the file meta (PS3.7 D.3.3.2)."""
IMPLEMENTATION_NAME: Final = "CONSILIUM_1"
USUAL: Final = ("113100", "113107", "113108")
"""Codes of what is done to an image under the release's settings when nothing was blanked."""
_CLASS: Final = 0x00080016
_INSTANCE: Final = 0x00080018
_SAMPLES: Final = 0x00280002
_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_ALLOCATED: Final = 0x00280100
_STORED: Final = 0x00280101
_HIGH: Final = 0x00280102
PIXELS: Final = 0x7FE00010
_NAMED_BY: Final = {0x00020002: _CLASS, 0x00020003: _INSTANCE}
"""Of the file meta: which element of the data set says it."""
_META_ITEMS: Final = {
    one: element(one, vr, value)
    for one, vr, value in (
        (0x00020001, "OB", b"\x00\x01"),
        (0x00020010, "UI", str(ExplicitVRLittleEndian)),
        (0x00020012, "UI", IMPLEMENTATION_UID),
        (0x00020013, "SH", IMPLEMENTATION_NAME),
    )
}
Elements = dict[BaseTag, "RawDataElement | DataElement"]
"""A data set while it is made."""


def mark(target: Dataset, methods: tuple[str, ...] = USUAL) -> None:
    """Say that the identity was removed, and how: the codes and what PS3.15 E.2 asks for beside them.

    Args:
        target: from `Deidentifier.apply`.
        methods: codes of `client.deid.methods`, what was really done.
    """
    for item in _marks(methods):
        target[item.tag] = item


@cache
def _marks(methods: tuple[str, ...] = USUAL) -> tuple[RawDataElement, ...]:
    codes = Dataset()
    codes.DeidentificationMethodCodeSequence = [_code(value, MEANINGS[value]) for value in methods]
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_sequence(buffer, codes["DeidentificationMethodCodeSequence"], ["iso8859"])
    words = {"PatientIdentityRemoved": "YES", **flags(methods)}
    made = [element(int(tag_for_keyword(k) or 0), dictionary_VR(k), word) for k, word in words.items()]
    return (
        *made,
        element(
            int(tag_for_keyword("DeidentificationMethodCodeSequence") or 0), "SQ", bytes(buffer.getvalue())
        ),
    )


def pixel_elements(made: Elements, pixels: npt.NDArray[np.integer[Any]]) -> Elements:
    """Pixels and the numbers that describe them.

    Args:
        made: holds BitsStored.
        pixels: [rows, columns] or [frames, rows, columns], 8 or 16 bits.
    """
    bits = pixels.dtype.itemsize * 8
    stored = int.from_bytes(made[tag(_STORED)].value, "little")
    rows, columns = pixels.shape[-2:]
    numbers = {
        _ROWS: rows,
        _COLUMNS: columns,
        _SAMPLES: 1,
        _ALLOCATED: bits,
        _HIGH: stored - 1,
    }
    found: Elements = {tag(one): element(one, "US", number) for one, number in numbers.items()}
    if pixels.ndim == 3:
        found[tag(_FRAMES)] = element(_FRAMES, "IS", pixels.shape[0])
    found[tag(PIXELS)] = element(PIXELS, "OB" if bits == 8 else "OW", _bytes_of(pixels))
    return found


def _bytes_of(pixels: npt.NDArray[np.integer[Any]]) -> bytes:
    """Their bytes, not copied where they are a view of all of some bytes, as of pixels that nothing had to change."""
    owner: object = pixels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    whole = isinstance(owner, bytes) and len(owner) == pixels.nbytes and pixels.flags.c_contiguous
    return owner if isinstance(owner, bytes) and whole else np.ascontiguousarray(pixels).tobytes()


def file_meta(made: Elements) -> FileMetaDataset:
    """Class and instance of the data set, our syntax, our name, and nothing else.

    Raises:
        FileRefused: `sop-class-missing`, or `deid-uid` without an instance.
    """
    if tag(_CLASS) not in made:
        raise FileRefused(
            "an object",
            "its data set does not say of which SOP class it is",
            "Export it again; what its file meta says is not the image's own word",
            code="sop-class-missing",
        )
    if tag(_INSTANCE) not in made:
        raise FileRefused(
            "an image", "it has no SOPInstanceUID", "Export it again with its UIDs", code="deid-uid"
        )
    named = {one: element(one, "UI", made[tag(of)].value) for one, of in _NAMED_BY.items()}
    return FileMetaDataset({tag(one): item for one, item in (_META_ITEMS | named).items()})


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item
