"""Lossy compression, through the coders that archives use."""

from __future__ import annotations

import io
from typing import Final

import numpy as np

from simulations.scanners.xray.exposure import Frame

NARROW: Final = 8
"""Bits of baseline JPEG; 8-bit JPEG 2000 goes as bytes too."""


def compression(frame: Frame) -> None:
    """What comes back after lossy compression, where the site exports so.

    Formula: baseline JPEG: 8x8 cosine transform, rounded by quality's table; JPEG 2000: irreversible 9/7 wavelets cut at a ratio.
    Unit: stored value.
    Source: ITU-T T.81 through Pillow's libjpeg; ITU-T T.800 through OpenJPEG.
    """
    kind = frame.exposure.machine.display.compression
    if kind == "jpeg":
        _jpeg(frame)
    elif kind == "jpeg2000":
        _jpeg2000(frame)


def _jpeg(frame: Frame) -> None:
    from PIL import Image  # noqa: PLC0415 - most machines do without

    kept = io.BytesIO()
    Image.fromarray(frame.pixels.astype(np.uint8)).save(kept, "JPEG", quality=round(frame.exposure.strength))
    with Image.open(kept) as read:
        frame.pixels = np.asarray(read, dtype=np.uint16)


def _jpeg2000(frame: Frame) -> None:
    from openjpeg.utils import decode, encode_array  # noqa: PLC0415 - most machines do without

    display = frame.exposure.machine.display
    kind = np.uint8 if display.bits <= NARROW else np.uint16
    kept = encode_array(
        frame.pixels.astype(kind),
        bits_stored=display.bits,
        use_mct=False,
        compression_ratios=[frame.exposure.strength],
    )
    # Wavelets swing past the edges of the range.
    frame.pixels = np.minimum(np.asarray(decode(kept), dtype=np.uint16), (1 << display.bits) - 1)
