"""Every quality figure of a site by modality and scanner: its images, what was refused, the bounds drawn in."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from client.index import FileOutcome, ImageRow, Index
from client.quality import BOUNDS, RADIOGRAPHS
from client.quality_pose import template
from common.pages.svg import Drawing, Scale, ticks

NAMES: Final = {
    "median": "Median, in the modality's unit",
    "spread": "Spread, 1% to 99%",
    "contrast": "Contrast: spread by range",
    "exposure": "Exposure: middle of the field",
    "noise": "Noise by spread",
    "sharpness": "Sharpness",
    "clipped": "Clipped at both ends, share",
    "saturated": "At the highest value, share",
    "side": "Shorter side, pixels",
    "pose_margin": "Pose: another way fits better by",
    "pose_fit": "Pose: fit of the best way",
}
"""In the order they are shown."""
_BINS: Final = 32
_WIDE, _HIGH = 292.0, 132.0
_LARGE: Final = 1000.0
_REACH: Final = 0.6
"""A bound further off than this share of the images' own range is said in words and not drawn."""
Range = tuple[float, float]
EVERYWHERE: Final[Range] = (-math.inf, math.inf)


@dataclass(frozen=True)
class Strip:
    """One figure of one scanner."""

    figure: str
    accepted: tuple[float, ...]
    refused: tuple[float, ...]
    default: Range
    """What holds until the site has bounds of its own, and beside them."""
    own: Range | None = None
    """The site's own, widened percentiles."""


@dataclass(frozen=True)
class ScannerQuality:
    """One scanner of one modality."""

    modality: str
    name: str
    """Maker and model."""
    code: str
    """Keyed hash of the device."""
    images: int
    patients: int
    refused: dict[str, int]
    """Code to number of files, of those refused after they were measured."""
    from_images: int
    """How many images the site's own bounds were taken from; 0 for none."""
    strips: tuple[Strip, ...]


def distributions(index: Index) -> list[ScannerQuality]:
    """Every modality and scanner, by modality and number of images."""
    images: dict[tuple[str, str], list[ImageRow]] = defaultdict(list)
    files: dict[tuple[str, str], list[FileOutcome]] = defaultdict(list)
    for row in index.images():
        images[row.modality, row.scanner].append(row)
    for file in index.judged():
        files[file.modality, file.scanner].append(file)
    found = [_scanner(index, where, images[where], files[where]) for where in {**images, **files}]
    return sorted(found, key=lambda one: (one.modality, -one.images, one.name, one.code))


def default_bounds(modality: str) -> dict[str, Range]:
    """Figure to the bounds that come with this release, for images of this modality."""
    bounds = {
        bound.figure: (bound.low, bound.high)
        for bound in BOUNDS
        if bound.figure != "exposure" or modality in RADIOGRAPHS
    }
    limits = template()
    return {**bounds, "pose_margin": (-math.inf, limits.margin), "pose_fit": (limits.least, math.inf)}


def _scanner(
    index: Index, where: tuple[str, str], images: Sequence[ImageRow], files: Sequence[FileOutcome]
) -> ScannerQuality:
    own = index.percentiles(*where)
    defaults = default_bounds(where[0])
    strips = []
    for figure in NAMES:
        accepted = _values(figure, (row.quality for row in images))
        refused = _values(figure, (file.quality for file in files))
        if accepted or refused:
            bounds = own.bounds.get(figure) if own else None
            strips.append(Strip(figure, accepted, refused, defaults.get(figure, EVERYWHERE), bounds))
    return ScannerQuality(
        modality=where[0],
        name=f"{images[0].manufacturer} {images[0].model}".strip() if images else "",
        code=where[1],
        images=len(images),
        patients=len({row.patient for row in images}),
        refused=dict(sorted(Counter(file.code for file in files).items())),
        from_images=own.images if own else 0,
        strips=tuple(strips),
    )


def _values(figure: str, all_figures: Iterable[Mapping[str, float]]) -> tuple[float, ...]:
    return tuple(
        figures[figure] for figures in all_figures if figure in figures and math.isfinite(figures[figure])
    )


def strip(one: Strip) -> Markup:
    """One figure drawn: accepted images as bars, refused ones as triangles below, bounds as lines."""
    axis = _axis(one)
    drawing = Drawing(_WIDE, _HIGH, _said(one))
    drawing.text((0.0, 14.0), NAMES[one.figure], "tb")
    x = Scale(*axis, 6.0, _WIDE - 6)
    counts, edges = histogram(one)
    most, floor = max(int(counts.max(initial=1)), 1), 92.0
    for k, count in enumerate(counts):
        if count:
            left, right = x(float(edges[k])) + 0.5, x(float(edges[k + 1])) - 0.5
            high = max(64.0 * count / most, 1.2)
            drawing.rect((left, floor - high), (right - left, high), "bar", fill="#7fa8cc")
    drawing.line((6.0, floor), (_WIDE - 6, floor), "axis")
    for bounds, style in ((one.default, "ideal"), (one.own or EVERYWHERE, "limit")):
        for bound in bounds:
            if axis[0] <= bound <= axis[1]:
                drawing.line((x(bound), 24.0), (x(bound), floor + 3), style)
    for value in one.refused:
        drawing.marker((x(value), floor + 7), "triangle", "#a8071a", size=3.4)
    for tick in ticks(*axis, 3):
        drawing.text((min(max(x(tick), 16.0), _WIDE - 16), 116.0), _number(tick), "tick", "middle")
    drawing.text((0.0, 130.0), _bounds_said(one), "ts")
    return drawing.svg()


def histogram(one: Strip) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Accepted images in the bins that are drawn: counts [32] and edges [33]."""
    counts, edges = np.histogram(one.accepted, np.linspace(*_axis(one), _BINS + 1))
    return counts.astype(np.int64), edges.astype(np.float64)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def _axis(one: Strip) -> Range:
    seen = [*one.accepted, *one.refused, *(v for v in one.own or () if math.isfinite(v))]
    low, high = min(seen), max(seen)
    room = (high - low) * _REACH or abs(high) * 0.1 or 1.0
    near = [bound for bound in one.default if low - room <= bound <= high + room]
    low, high = min([low, *near]), max([high, *near])
    edge = (high - low) * 0.03 or room * 0.1
    return low - edge, high + edge


def _bounds_said(one: Strip) -> str:
    default = f"default {_range(one.default)}" if one.default != EVERYWHERE else "no default"
    return f"{default}; own {_range(one.own)}" if one.own else default


def _range(bounds: Range) -> str:
    low, high = bounds
    if math.isinf(low):
        return f"up to {_number(high)}"
    return f"from {_number(low)}" if math.isinf(high) else f"{_number(low)} to {_number(high)}"


def _said(one: Strip) -> str:
    middle = f", median {np.median(one.accepted):.4g}" if one.accepted else ""
    images = f"{len(one.accepted)} images{middle}; {len(one.refused)} refused"
    return f"{NAMES[one.figure]}: {images}; {_bounds_said(one)}."
