"""GDCM called directly, for what pydicom's codecs decline: JPEG with 12 bits, progressive or spectral."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class Codestream(NamedTuple):
    """One compressed greyscale frame and what its header says about it."""

    frame: bytes
    syntax: str
    """Transfer syntax UID."""
    rows: int
    cols: int
    allocated: int
    stored: int
    signed: bool


def decode_with_gdcm(source: Codestream) -> bytes | None:
    """The frame as little-endian bytes, or None when GDCM cannot read it."""
    try:
        gdcm: Any = importlib.import_module("gdcm")
    except ImportError:
        return None
    # GDCM frees what Python no longer names: every part stays named until the buffer is read.
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source.frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((source.cols, source.rows, 1))
    image.SetDataElement(element)
    image.SetPlanarConfiguration(0)
    kind = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(kind(kind.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(source.syntax)))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, source.allocated, source.stored, source.stored - 1, int(source.signed))
    )
    text = image.GetBuffer()
    return text.encode("utf-8", "surrogateescape") if text else None
