"""The quality gate: what is blank, clipped, broken or seen before does not enter.

Bounds that hold everywhere come first. They are generous on purpose: measured on 7,099 chest
radiographs of four hospitals and 108 CR, CT and MR images of twenty scanners, and set beyond the most extreme image
a radiologist could still read. Once a site has `ENOUGH_IMAGES` images of one modality and scanner, its own
0.1% and 99.9% percentiles join them, widened by half their distance. Every figure is kept, whether it
decided anything or not, so that a hospital's report can show it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from client.index_rows import Percentiles
from client.quality_figures import measured

ENOUGH_IMAGES: Final = 200


@dataclass(frozen=True)
class Bound:
    """The range of one figure outside of which an image is refused, with the words for it."""

    figure: str
    low: float
    high: float
    code: str
    rule: str
    remedy: str


RADIOGRAPHS: Final = frozenset({"CR", "DX", "RG", "MG", "PX"})
"""Modalities of projection, where most of the field is exposed; in CT and MR most of it is air."""

BOUNDS: Final[tuple[Bound, ...]] = (
    Bound(
        "side", 32, math.inf, "quality-small", "its shorter side is below 32 pixels", "Send the full image"
    ),
    Bound("spread", 1e-9, math.inf, "quality-blank", "nearly all its pixels are equal", "Check the exposure"),
    Bound(
        "clipped",
        0,
        0.98,
        "quality-clipped",
        "nearly all its pixels lie at the two ends of their range",
        "Export the image before its window was burnt in",
    ),
    Bound(
        "saturated",
        0,
        0.75,
        "quality-clipped",
        "most of its pixels are at the highest value",
        "Check the exposure and the detector",
    ),
    Bound(
        "contrast",
        0.01,
        math.inf,
        "quality-contrast",
        "a few extreme pixels hold nearly all its range",
        "Check the detector for defects, or mask the outliers at the source",
    ),
    Bound(
        "sharpness",
        1e-4,
        math.inf,
        "quality-sharpness",
        "it has no detail at all",
        "Check for motion or an empty field",
    ),
    Bound("noise", 0, 0.1, "quality-noise", "it is mostly noise", "Check the decoder and the exposure"),
    Bound(
        "exposure",
        0.01,
        0.99,
        "quality-exposure",
        "nearly all of the exposed field is as dark or as bright as it can be",
        "Check the exposure and the export",
    ),
)
"""Most extreme of the images named above: side 64, saturated 0.03, clipped 0.51, contrast 0.23, sharpness
0.0006, noise 0.02, exposure 0.18 and 0.92 (radiographs). White noise measures 0.21 to 0.30."""
_SITE_FIGURES: Final = {
    "median": ("quality-exposure", "its exposure is unlike this scanner's other images"),
    "spread": ("quality-contrast", "its contrast is unlike this scanner's other images"),
    "noise": ("quality-noise", "its noise is unlike this scanner's other images"),
    "sharpness": ("quality-sharpness", "its sharpness is unlike this scanner's other images"),
}
"""Figures held against the site's own percentiles, in this order: noise also looks sharp."""


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
        ok, or the first rule broken with its code: `quality-broken`, `quality-small`, `quality-blank`,
        `quality-clipped`, `quality-contrast`, `quality-sharpness`, `quality-noise`, `quality-exposure`,
        `quality-duplicate`.
    """
    image = pixels[len(pixels) // 2] if pixels.ndim == 3 else pixels
    ends = (
        (float(image.min()), float(image.max())) if image.ndim == 2 and image.size else (math.nan, math.nan)
    )
    if not all(map(math.isfinite, ends)):  # what is no number shows in the least or the greatest of them
        return QualityReport(
            False, "quality-broken", "it is not an array of numbers", "Ask the sender for the image itself"
        )
    figures = measured(image, *ends)
    for bound in BOUNDS:
        if bound.figure == "exposure" and context.modality not in RADIOGRAPHS:
            continue
        if not bound.low <= figures.get(bound.figure, bound.low) <= bound.high:
            return QualityReport(False, bound.code, bound.rule, bound.remedy, figures)
    unlike = _unlike(figures, context.percentiles)
    if unlike is not None:
        code, rule = unlike
        return QualityReport(
            False, code, rule, "Look at it; if it is sound, ingest it with its series", figures
        )
    if context.duplicate:
        return QualityReport(
            False,
            "quality-duplicate",
            "exactly these pixels are in the index already",
            "Nothing to do if it was sent twice; otherwise check whose image it is",
            figures,
        )
    return QualityReport(ok=True, figures=figures)


def pixel_digest(pixels: npt.NDArray[np.float32]) -> str:
    """SHA-256 of shape and values: equal for equal images whatever their file."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, dtype="<f4").data)
    return digest.hexdigest()


def site_percentiles(figures: Sequence[Mapping[str, float]]) -> Percentiles | None:
    """A site's own bounds from the figures of its accepted images, or None for too few.

    0.1% and 99.9%, each moved out by half their distance.
    """
    if len(figures) < ENOUGH_IMAGES:
        return None
    bounds = {}
    for name in _SITE_FIGURES:
        values = [one[name] for one in figures if name in one]
        if len(values) >= ENOUGH_IMAGES:
            low, high = np.quantile(values, [0.001, 0.999])
            room = (high - low) / 2
            bounds[name] = (float(low - room), float(high + room))
    return Percentiles(len(figures), bounds)


def _unlike(figures: Mapping[str, float], percentiles: Percentiles | None) -> tuple[str, str] | None:
    if percentiles is None:
        return None
    for name, (code, rule) in _SITE_FIGURES.items():
        low, high = percentiles.bounds.get(name, (-math.inf, math.inf))
        if not low <= figures[name] <= high:
            return code, rule
    return None
