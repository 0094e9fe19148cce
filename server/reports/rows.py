"""Figures with their intervals beside bands of chance, one under the other: what the bias chapter is drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from common.messages import Estimate
from common.pages.page import csv_uri
from common.pages.svg import Drawing, Scale, shortened, ticks
from server.records_bias import Chance

RED: Final = "#a8071a"
INK: Final = "#0072b2"
_HEAD: Final = 34.0
_FAMILY: Final = 32.0


@dataclass(frozen=True)
class Row:
    """One line of such a figure."""

    family: str
    label: str
    figure: Estimate
    words: str
    """What is written at its end."""
    band: Chance | None = None
    alarm: bool = False
    marker: str = "circle"
    patients: int = 0


@dataclass(frozen=True)
class Axis:
    """What the rows are drawn on."""

    title: str
    low: float
    high: float
    zero: float | None = None
    """A value to mark all the way down."""
    tick: Callable[[float], str] = "{:g}".format


@dataclass(frozen=True)
class _Layout:
    width: float
    left: float
    right: float
    row: float
    narrow: bool


_WIDE: Final = _Layout(930.0, 215.0, 610.0, 30.0, narrow=False)
_NARROW: Final = _Layout(372.0, 6.0, 364.0, 56.0, narrow=True)


def drawn(rows: Sequence[Row], axis: Axis) -> tuple[Markup, Markup]:
    """The figure, wide and narrow, with one text for who cannot see it."""
    said = "; ".join(f"{r.family} {r.label} {r.words}{', more than chance' if r.alarm else ''}" for r in rows)
    alt = f"{axis.title}. {said or 'Nothing could be asked'}."
    return _draw(rows, axis, _WIDE, alt), _draw(rows, axis, _NARROW, alt)


def numbers(rows: Sequence[Row]) -> str:
    """The same as a download."""
    header = ("group", "row", "value", "low", "high", "chance_low", "chance_high", "patients", "alarm")
    return csv_uri(
        header,
        [
            (
                row.family,
                row.label,
                row.figure.value,
                row.figure.low,
                row.figure.high,
                row.band.low if row.band else None,
                row.band.high if row.band else None,
                row.patients,
                "yes" if row.alarm else "no",
            )
            for row in rows
        ],
    )


def reach(rows: Sequence[Row], least: float) -> float:
    """How far an axis around zero must go."""
    edges = [least]
    for row in rows:
        edges += [abs(row.figure.low), abs(row.figure.high)]
        edges += [abs(row.band.low), abs(row.band.high)] if row.band else []
    return max(edges) * 1.05


def _draw(rows: Sequence[Row], axis: Axis, layout: _Layout, alt: str) -> Markup:
    families = list(dict.fromkeys(row.family for row in rows))
    height = _HEAD + len(families) * _FAMILY + len(rows) * layout.row + 26
    drawing = Drawing(layout.width, height, alt)
    scale = Scale(axis.low, axis.high, layout.left, layout.right)
    _axis(drawing, scale, axis, layout)
    y = _HEAD
    for family in families:
        drawing.text((0.0 if not layout.narrow else layout.left, y + 22), family, "tb")
        y += _FAMILY
        for row in (r for r in rows if r.family == family):
            _row(drawing, row, (scale, layout, y))
            y += layout.row
    return drawing.svg("chart rows")


def _axis(drawing: Drawing, scale: Scale, axis: Axis, layout: _Layout) -> None:
    bottom = drawing.height - 22
    for tick in ticks(scale.low, scale.high, 4 if layout.narrow else 6):
        x = scale(tick)
        drawing.line((x, _HEAD - 4), (x, bottom), "gridline")
        drawing.text((x, bottom + 15), axis.tick(tick), "tick", "middle")
    if axis.zero is not None:
        drawing.line((scale(axis.zero), _HEAD - 4), (scale(axis.zero), bottom), "axis")
    drawing.text((layout.left, _HEAD - 14), axis.title, "ts")


def _row(drawing: Drawing, row: Row, place: tuple[Scale, _Layout, float]) -> None:
    scale, layout, y = place
    if row.alarm:
        drawing.rect((0.0, y), (layout.width, layout.row - 2), "weakrow", rx=4)
    middle = y + layout.row - 16 if layout.narrow else y + layout.row / 2 - 1
    if row.band is not None:
        left, right = scale(row.band.low), scale(row.band.high)
        drawing.rect((left, middle - 10), (max(right - left, 2.0), 20.0), "band", rx=3)
    colour = RED if row.alarm else INK
    ends = {"x1": scale(row.figure.low), "x2": scale(row.figure.high), "y1": middle, "y2": middle}
    drawing.add("line", **ends, stroke=colour, stroke_width=2.2)
    drawing.marker((scale(row.figure.value), middle), row.marker, colour, hollow=not row.alarm, size=4.6)
    text, figure = ("tw", "numw") if row.alarm else ("t", "num")
    mark = "▼ " if row.alarm else ""
    if layout.narrow:
        drawing.text((layout.left, y + 17), mark + shortened(row.label, 15), text)
        drawing.text((layout.right, y + 17), shortened(row.words, 36), figure, "end")
        return
    drawing.text((10.0, middle + 4), mark + shortened(row.label, 28), text)
    drawing.text((layout.right + 16, middle + 4), row.words, figure)
