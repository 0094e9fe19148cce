"""The forest plot: each group's AUROC with its interval, beside the hospital alone and the band of chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from common.messages import Estimate
from common.pages.page import Figure, csv_uri, estimate, two
from common.pages.svg import Drawing, Scale, shortened, ticks
from server.reports.crowds import EVERYBODY, Crowd
from server.reports.select import Look, look
from server.reports.statistics import GroupRow, family_name

WIDE: Final = 930.0
NARROW: Final = 372.0


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in pixels; narrow puts the words above their row."""

    width: float
    plot_left: float
    plot_right: float
    row_height: float
    narrow: bool


_WIDE = _Layout(WIDE, 205.0, 640.0, 38.0, narrow=False)
_NARROW = _Layout(NARROW, 6.0, NARROW - 8.0, 62.0, narrow=True)
_HEAD = 30.0
_FAMILY = 34.0


def forest(rows: list[GroupRow], series: str, confidence: float, crowd: Crowd = EVERYBODY) -> Figure:
    """The figure for one model; rows without a released AUROC say so, and of a crowd some hospitals are drawn."""
    style = look(series)
    total = sum(row.patients for row in rows if row.family == "hospital")
    drawn = [row for row in rows if row.family != "hospital" or crowd.has(row.name)]
    alt = _alt(drawn, style)
    return Figure(
        title=f"AUROC by hospital, scanner and projection: {style.label}",
        wide=_draw(drawn, series, _WIDE, alt),
        narrow=_draw(drawn, series, _NARROW, alt),
        patients=f"{total:,} test patients with a released AUROC; bars are {confidence:.0%} intervals; combined groups weigh hospitals by precision.",
        note=(
            "Grey bar: where chance alone would put the group if it were truly as good as the others. "
            f"A group to the left of its bar is weak, and is shown in red. {crowd.words}".strip()
        ),
        csv=_csv(rows),
    )


def _alt(rows: list[GroupRow], style: Look) -> str:
    said = [f"{family_name(r.family)} {r.name} {two(r.auroc.value)}" for r in rows if r.auroc is not None]
    weak = [r.name for r in rows if r.weak]
    end = f" Below the band of chance: {', '.join(weak)}." if weak else " None lies below the band of chance."
    return f"Forest plot of AUROC, {style.label}. " + "; ".join(said) + "." + end


def _draw(rows: list[GroupRow], series: str, layout: _Layout, alt: str) -> Markup:
    families = list(dict.fromkeys(row.family for row in rows))
    height = _HEAD + len(families) * _FAMILY + len(rows) * layout.row_height + 26
    drawing = Drawing(layout.width, height, alt)
    scale = Scale(_lowest(rows), 1.0, layout.plot_left, layout.plot_right)
    _axis(drawing, scale, layout)
    y = _HEAD
    for family in families:
        drawing.text((0.0 if not layout.narrow else layout.plot_left, y + 23), family_name(family), "tb")
        y += _FAMILY
        for row in (r for r in rows if r.family == family):
            _row(drawing, row, series, (scale, layout, y))
            y += layout.row_height
    return drawing.svg("chart forest")


def _lowest(rows: list[GroupRow]) -> float:
    lows = [e.low for r in rows for e in (r.auroc, r.alone) if e is not None]
    lows += [r.band.low for r in rows if r.band is not None]
    return min(0.5, math.floor(min(lows, default=0.5) * 10) / 10)


def _axis(drawing: Drawing, scale: Scale, layout: _Layout) -> None:
    bottom = drawing.height - 22
    for tick in ticks(scale.low, scale.high):
        x = scale(tick)
        drawing.line((x, _HEAD), (x, bottom), "gridline")
        drawing.text((x, bottom + 15), f"{tick:.1f}", "tick", "middle")
        drawing.text((x, _HEAD - 8), f"{tick:.1f}", "tick", "middle")
    if not layout.narrow:
        drawing.text((layout.plot_right + 22, _HEAD - 8), "AUROC (interval)", "ts")
        drawing.text((layout.width - 112, _HEAD - 8), "alone", "ts")
        drawing.text((layout.width, _HEAD - 8), "n", "ts", "end")
    else:
        drawing.text((layout.plot_left, _HEAD - 22), "AUROC", "ts")


def _row(drawing: Drawing, row: GroupRow, series: str, place: tuple[Scale, _Layout, float]) -> None:
    scale, layout, y = place
    if row.weak:
        drawing.rect((0.0, y), (layout.width, layout.row_height - 2), "weakrow", rx=4)
    middle = y + layout.row_height - 20 if layout.narrow else y + layout.row_height / 2 - 1
    if row.band is not None:
        left, right = scale(row.band.low), scale(row.band.high)
        drawing.rect((left, middle - 14), (right - left, 28.0), "band", rx=3)
        centre = scale(row.band.centre)
        drawing.line((centre, middle - 14), (centre, middle + 14), "common")
    if row.auroc is not None:
        colour = "#a8071a" if row.weak else look(series).colour
        _interval(drawing, row.auroc, scale, middle - 5, (look(series), colour))
    if row.alone is not None:
        _interval(drawing, row.alone, scale, middle + 8, (look("alone"), look("alone").colour))
    _words(drawing, row, layout, y)


def _interval(drawing: Drawing, e: Estimate, scale: Scale, y: float, how: tuple[Look, str]) -> None:
    style, colour = how
    thick = 1.3 if style.hollow else 2.2
    drawing.add("line", x1=scale(e.low), x2=scale(e.high), y1=y, y2=y, stroke=colour, stroke_width=thick)
    drawing.marker((scale(e.value), y), style.marker, colour, hollow=style.hollow, size=4.6)


def _words(drawing: Drawing, row: GroupRow, layout: _Layout, y: float) -> None:
    label = shortened(row.name, 24)
    text, figure = ("tw", "numw") if row.weak else ("t", "num")
    shown = estimate(row.auroc) if row.auroc is not None else row.absent
    n = f"{row.patients:,}" if row.auroc is not None else ""
    mark = "▼ " if row.weak else ""
    if layout.narrow:
        drawing.text((layout.plot_left, y + 17), mark + shortened(row.name, 20), text)
        drawing.text((layout.plot_right, y + 17), shown + (f"  n={n}" if n else ""), figure, "end")
        return
    middle = y + layout.row_height / 2 + 3
    drawing.text((10.0, middle), mark + label, text)
    drawing.text((layout.plot_right + 22, middle), shown, figure)
    drawing.text((layout.width - 112, middle), two(row.alone.value) if row.alone else "", "ts")
    drawing.text((layout.width, middle), n, "num", "end")


def _csv(rows: list[GroupRow]) -> str:
    header = ("group", "level", "auroc", "low", "high", "alone", "alone_low", "alone_high")
    band = ("band_low", "band_high", "patients", "weak")
    return csv_uri(header + band, [_csv_row(row) for row in rows])


def _csv_row(row: GroupRow) -> tuple[str | int | float | None, ...]:
    figures = [*_triple(row.auroc), *_triple(row.alone)]
    band = (row.band.low, row.band.high) if row.band else (None, None)
    return (row.family, row.name, *figures, *band, row.patients, "yes" if row.weak else "no")


def _triple(e: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (e.value, e.low, e.high) if e is not None else (None, None, None)
