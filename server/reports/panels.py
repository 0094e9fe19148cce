"""Small charts: curves over rounds, calibration, the arms side by side. Each stands in a box of 300 or so pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from common.messages import CalibrationBin, Estimate
from common.pages.page import estimate, two
from common.pages.svg import Drawing, Scale, shortened, spread, ticks
from server.reports.select import look

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#2f9fd6", "#3a3a3a", "#7a4fa3")
"""Okabe and Ito (2008), yellow darkened to be seen on white, two added; beyond eight, lines are grey."""

DASHES: Final = ("", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3", "8 3 2 3")

Curve = Sequence[tuple[int, float | None]]
"""(round, value); None where nothing was released."""


@dataclass(frozen=True)
class Axes:
    """What a panel of curves shows and how far its value axis must reach."""

    title: str
    unit: str
    low: float | None = None
    high: float | None = None
    decimals: int = 2
    reference: float | None = None
    """A value to mark across the panel: a budget."""


def curves(by_site: Mapping[str, Curve], axes: Axes, size: tuple[float, float] = (440.0, 236.0)) -> Markup:
    """One line per hospital over rounds, each named at its end."""
    width, height = size
    drawing = Drawing(width, height, _curves_alt(by_site, axes))
    drawing.text((0.0, 14.0), axes.title, "tb")
    points = [p for curve in by_site.values() for p in curve if p[1] is not None]
    if not points:
        drawing.text((0.0, 40.0), "Nothing was released.", "ts")
        return drawing.svg()
    x = Scale(min(p[0] for p in points), max(p[0] for p in points), 40.0, width - 122)
    values = [p[1] for p in points if p[1] is not None]
    y = _value_scale(values, axes, height)
    _frame(drawing, x, y, axes)
    if axes.reference is not None:
        drawing.line((x.start, y(axes.reference)), (x.end, y(axes.reference)), "limit")
        drawing.text((x.start + 4, y(axes.reference) - 5), f"budget {axes.reference:g}", "ts")
    ends = []
    for index, (site, curve) in enumerate(by_site.items()):
        colour, dash = _line_style(index, len(by_site))
        drawing.path(
            [None if v is None else (x(r), y(v)) for r, v in curve],
            "curve",
            stroke=colour,
            stroke_width=1.9,
            stroke_dasharray=dash or "none",
        )
        last = next(((r, v) for r, v in reversed(curve) if v is not None), None)
        if last is not None:
            ends.append((site, (x(last[0]), y(last[1])), colour))
    _end_labels(drawing, ends, x.end, height)
    return drawing.svg()


def _curves_alt(by_site: Mapping[str, Curve], axes: Axes) -> str:
    said = []
    for site, curve in by_site.items():
        values = [v for _, v in curve if v is not None]
        if values:
            said.append(f"{site} from {values[0]:.{axes.decimals}f} to {values[-1]:.{axes.decimals}f}")
    return f"{axes.title} over rounds. " + ("; ".join(said) or "Nothing was released") + "."


def _value_scale(values: Sequence[float], axes: Axes, height: float) -> Scale:
    low = min(values) if axes.low is None else min(axes.low, *values)
    high = max(values) if axes.high is None else max(axes.high, *values)
    margin = (high - low) * 0.06 or 0.05
    low = low if axes.low is not None else low - margin
    high = high if axes.high is not None else high + margin
    return Scale(low, high, height - 34, 30.0)


def _frame(drawing: Drawing, x: Scale, y: Scale, axes: Axes) -> None:
    for tick in ticks(y.low, y.high, 5):
        drawing.line((x.start, y(tick)), (x.end, y(tick)), "gridline")
        drawing.text((x.start - 6, y(tick) + 4), f"{tick:g}", "tick", "end")
    for tick in (t for t in ticks(x.low, x.high, 5) if t == int(t)):
        drawing.text((x(tick), y.start + 16), f"{tick:.0f}", "tick", "middle")
    drawing.line((x.start, y.start), (x.end, y.start), "axis")
    drawing.text(((x.start + x.end) / 2, y.start + 30), axes.unit, "ts", "middle")


def _line_style(index: int, lines: int) -> tuple[str, str]:
    if lines > len(PALETTE):
        return "#9aa5b1", ""
    return PALETTE[index], DASHES[index]


def _end_labels(
    drawing: Drawing, ends: list[tuple[str, tuple[float, float], str]], right: float, height: float
) -> None:
    if len(ends) > len(PALETTE):
        ordered = sorted(ends, key=lambda end: end[1][1])
        ends = [ordered[0], ordered[-1]]
    heights = spread([at[1] for _, at, _ in ends], 13.0, 30.0, height - 30)
    for (site, at, colour), label_y in zip(ends, heights, strict=True):
        drawing.add(
            "path",
            d=f"M{at[0]:.1f} {at[1]:.1f}L{right + 8:.1f} {label_y:.1f}",
            stroke=colour,
            stroke_width=0.7,
            fill="none",
        )
        drawing.add("text", shortened(site, 18), x=right + 11, y=label_y + 4, class_="lab", fill=colour)


def calibration(site: str, bins: Sequence[CalibrationBin], error: float | None) -> Markup:
    """Observed share against mean score; a bin's area grows with its patients; held-back bins are absent."""
    drawing = Drawing(172.0, 206.0, _calibration_alt(site, bins, error))
    drawing.text((0.0, 14.0), shortened(site, 20), "tb")
    x, y = Scale(0.0, 1.0, 30.0, 164.0), Scale(0.0, 1.0, 166.0, 32.0)
    for tick in (0.0, 0.5, 1.0):
        drawing.line((x.start, y(tick)), (x.end, y(tick)), "gridline")
        drawing.text((x.start - 9, y(tick) + 4), f"{tick:g}", "tick", "end")
        drawing.text((x(tick), y.start + 20), f"{tick:g}", "tick", "middle")
    drawing.line((x(0), y(0)), (x(1), y(1)), "ideal")
    if not bins:
        drawing.text((x(0.5), y(0.62)), "every bin held back", "ts", "middle")
    drawing.path(
        [(x(b.mean_score), y(b.observed)) for b in bins], "curve", stroke="#0072b2", stroke_width=1.4
    )
    most = max((b.patients for b in bins), default=1)
    for b in bins:
        drawing.marker(
            (x(b.mean_score), y(b.observed)), "circle", "#0072b2", size=3 + 4 * (b.patients / most) ** 0.5
        )
    drawing.text((x(0.5), 202.0), "mean score of the bin", "ts", "middle")
    return drawing.svg()


def _calibration_alt(site: str, bins: Sequence[CalibrationBin], error: float | None) -> str:
    said = "; ".join(f"score {two(b.mean_score)} observed {two(b.observed)}, n={b.patients}" for b in bins)
    start = f"Calibration at {site}. "
    return (
        start + (said or "Every bin was held back") + (f". ECE {two(error)}." if error is not None else ".")
    )


def arms_panel(title: str, values: Mapping[str, Estimate | None], low: float, width: float = 292.0) -> Markup:
    """One hospital (or the mean): every model's AUROC with its interval, one under the other."""
    shown = [(series, e) for series, e in values.items() if e is not None]
    said = "; ".join(f"{look(series).label} {estimate(e)}" for series, e in shown)
    height = 52.0 + 19 * max(len(shown), 1)
    drawing = Drawing(width, height, f"AUROC at {title}. {said or 'Nothing was released'}.")
    drawing.text((0.0, 14.0), shortened(title, 34), "tb")
    x = Scale(low, 1.0, 8.0, width - 112)
    bottom = height - 22
    for tick in ticks(low, 1.0, 4):
        drawing.line((x(tick), 24.0), (x(tick), bottom), "gridline")
        drawing.text((x(tick), bottom + 14), f"{tick:g}", "tick", "middle")
    for index, (series, e) in enumerate(shown):
        style, y = look(series), 36.0 + 19 * index
        drawing.add("line", x1=x(e.low), x2=x(e.high), y1=y, y2=y, stroke=style.colour, stroke_width=2)
        drawing.marker((x(e.value), y), style.marker, style.colour, hollow=style.hollow)
        drawing.text((width, y + 4), estimate(e), "num", "end")
    if not shown:
        drawing.text((8.0, 40.0), "not released", "ts")
    return drawing.svg()


def key(series: str) -> Markup:
    """The marker of a series, for the legend."""
    drawing = Drawing(16.0, 14.0, look(series).label)
    drawing.marker((8.0, 7.0), look(series).marker, look(series).colour, hollow=look(series).hollow)
    return drawing.svg("keymark")


def band_key() -> Markup:
    """The swatch of the band of chance, for the legend."""
    drawing = Drawing(22.0, 14.0, "band of chance")
    drawing.rect((0.0, 1.0), (22.0, 12.0), "band", rx=2)
    return drawing.svg("keymark")
