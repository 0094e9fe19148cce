"""Pictures of the site report: cases as PNG inside the page, and small charts of the site's own figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from client.report.data import QualityFigure, ScoredCase
from common.pages.svg import Drawing, Scale, shortened, ticks

_HEAT: Final = np.array([254.0, 97.0, 0.0])
"""Orange: seen on grey by every kind of colour vision (IBM's colour-blind-safe palette)."""

_STRONGEST: Final = 0.7
"""Opacity of the map where it is 1, so that the anatomy stays visible under it."""

_POSITIVE, _NEGATIVE = "#d55e00", "#0072b2"


def grey(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pixels [rows, columns] as 8 bits, stretched between their 1st and 99th percentile."""
    low, high = np.percentile(pixels, [1, 99])
    share = np.clip((pixels - low) / ((high - low) or 1.0), 0, 1)
    return np.asarray(share * 255, dtype=np.uint8)


def overlay(pixels: npt.NDArray[np.float32], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The image under its map, uint8 [rows, columns, 3]."""
    base = np.repeat(grey(pixels)[:, :, None], 3, axis=2).astype(np.float64)
    opacity = (np.clip(heat, 0, 1) * _STRONGEST)[:, :, None]
    return np.asarray(base * (1 - opacity) + _HEAT * opacity, dtype=np.uint8)


def png_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """A `data:` address of [rows, columns] or [rows, columns, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def score_histogram(cases: Sequence[ScoredCase], threshold: float) -> Markup:
    """Scores of images with and without the finding, above and below the line, and the threshold."""
    width, height = 460.0, 220.0
    bins = np.linspace(0, 1, 21)
    up = np.histogram([c.score for c in cases if c.truth], bins)[0]
    down = np.histogram([c.score for c in cases if not c.truth], bins)[0]
    alt = f"Scores of {up.sum()} images with and {down.sum()} without the finding; threshold {threshold:.3f}."
    drawing = Drawing(width, height, alt)
    x = Scale(0.0, 1.0, 10.0, width - 10)
    most = max(int(up.max(initial=1)), int(down.max(initial=1)))
    middle, reach = 104.0, 76.0
    for k in range(20):
        left, wide = x(float(bins[k])) + 0.8, x(float(bins[1])) - x(0.0) - 1.6
        high, low = reach * up[k] / most, reach * down[k] / most
        drawing.rect((left, middle - high), (wide, float(high)), "bar", fill=_POSITIVE)
        drawing.rect((left, middle), (wide, float(low)), "bar", fill=_NEGATIVE)
    at = x(threshold)
    drawing.line((at, 20.0), (at, 188.0), "limit")
    drawing.text(
        (at, 14.0), f"threshold {threshold:.2f}", "ts", "middle" if 0.15 < threshold < 0.85 else "start"
    )
    drawing.text((x.end, 34.0), "finding present", "ts", "end")
    drawing.text((x.end, 184.0), "finding absent", "ts", "end")
    for tick in ticks(0.0, 1.0):
        drawing.text((x(tick), 204.0), f"{tick:g}", "tick", "middle")
    drawing.text((x(0.5), 218.0), "score", "ts", "middle")
    return drawing.svg()


def quality_panel(figure: QualityFigure) -> Markup:
    """One quality figure by scanner: the middle nine tenths as a bar, the median as a mark."""
    rows = list(figure.by_scanner.items())
    low = min(min(v) for _, v in rows)
    high = max(max(v) for _, v in rows)
    said = "; ".join(f"{name} median {np.median(v):.3g}" for name, v in rows)
    drawing = Drawing(292.0, 46.0 + 30 * len(rows), f"{figure.name} by scanner. {said}.")
    drawing.text((0.0, 14.0), figure.name.capitalize(), "tb")
    x = Scale(low, high if high > low else low + 1.0, 6.0, 286.0)
    for k, (name, values) in enumerate(rows):
        y = 34.0 + 30 * k
        start, middle, end = (x(float(q)) for q in np.percentile(values, [5, 50, 95]))
        drawing.text((6.0, y), f"{shortened(name, 28)}, {len(values):,} images", "ts")
        drawing.rect((start, y + 5), (max(end - start, 1.0), 8.0), "band")
        drawing.line((middle, y + 3), (middle, y + 15), "mark", stroke="#0072b2", stroke_width=2.2)
    bottom = 36.0 + 30 * len(rows)
    for tick in ticks(x.low, x.high, 3):
        drawing.text((x(tick), bottom + 8), f"{tick:g}", "tick", "middle")
    return drawing.svg()
