"""Gaps between groups beside the bands of chance: one row a group, p-values after Holm.

Of findings that somebody with the scores made (`common.statistics`): a researcher of all virtual sites, a hospital of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from common.pages.page import NOTHING, Figure, csv_uri, difference, estimate, signed
from common.pages.svg import Drawing, Scale, shortened, ticks
from common.statistics import Findings, Gap, Group
from common.statistics.catalogue import LABELS, SMALLER_IS_BETTER
from common.statistics.sample import Family
from server.reports.statistics import family_name

RED: Final = "#a8071a"
_INK: Final = "#0072b2"
_SOFT: Final = "#5f6b7a"
_WIDER: Final = "#eef2f7"
_HEAD: Final = 44.0
_FAMILY: Final = 34.0


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in pixels; narrow puts the words above their row."""

    width: float
    left: float
    right: float
    row: float
    narrow: bool


_WIDE: Final = _Layout(930.0, 215.0, 560.0, 32.0, narrow=False)
_NARROW: Final = _Layout(372.0, 6.0, 364.0, 60.0, narrow=True)


@dataclass(frozen=True)
class _Row:
    group: Group
    gap: Gap | None


def gap_figure(
    findings: Findings, metric: str = "auroc", families: tuple[Family, ...] | None = None
) -> Figure:
    """The picture of one metric.

    Args:
        findings: of one call, whose p-values were adjusted together.
        metric: one of those judged.
        families: which to draw; all of one attribute where not given.
    """
    rows = _rows(findings, metric, families)
    alpha, name = findings.settings.alpha, LABELS[metric]
    alt = _alt(rows, name, alpha)
    way = "right" if metric in SMALLER_IS_BETTER else "left"
    return Figure(
        title=f"{name[0].upper()}{name[1:]}: each group less all others of its kind",
        wide=_draw(rows, _WIDE, alt, (metric, alpha)),
        narrow=_draw(rows, _NARROW, alt, (metric, alpha)),
        patients=(
            f"{findings.tests:,} comparisons judged together by permutation of patients; bars are {1 - alpha:.0%} intervals; "
            "p-values after Holm."
        ),
        note=(
            f"Grey: where chance alone puts the gap; dark, if it were the only one; light, with all {findings.tests:,} looked at. "
            f"A gap beyond the light bar is more than chance, and is shown in red where the group is served worse (to the {way}). "
            f"Groups with fewer than {findings.settings.least_positives} patients of either kind are listed with their own figure, unranked."
        ),
        csv=_csv(rows, alpha),
    )


def _rows(findings: Findings, metric: str, families: tuple[Family, ...] | None) -> list[_Row]:
    known = {(g.family, g.level): g for g in findings.gaps if g.metric == metric}
    drawn = [g for g in findings.groups if (len(g.family) == 1 if families is None else g.family in families)]
    return [_Row(group, known.get((group.family, group.level))) for group in drawn]


def _alt(rows: list[_Row], name: str, alpha: float) -> str:
    said = [
        f"{r.group.level} {signed(r.gap.gap.value)}, p after Holm {_p(r.gap.holm)}"
        for r in rows
        if r.gap is not None
    ]
    beyond = [r.group.level for r in rows if r.gap is not None and r.gap.found(alpha)]
    end = f"More than chance: {', '.join(beyond)}." if beyond else "None is more than chance."
    return f"Gaps of {name} between groups. {'; '.join(said) or 'None could be judged'}. {end}"


def _draw(rows: list[_Row], layout: _Layout, alt: str, how: tuple[str, float]) -> Markup:
    families = list(dict.fromkeys(row.group.family for row in rows))
    height = _HEAD + len(families) * _FAMILY + len(rows) * layout.row + 30
    drawing = Drawing(layout.width, height, alt)
    reach = _reach(rows)
    scale = Scale(-reach, reach, layout.left, layout.right)
    _axis(drawing, scale, layout)
    y = _HEAD
    for family in families:
        drawing.text((0.0 if not layout.narrow else layout.left, y + 23), _name(family), "tb")
        y += _FAMILY
        for row in (r for r in rows if r.group.family == family):
            _row(drawing, row, (scale, layout, y), how)
            y += layout.row
    return drawing.svg("chart gaps")


def _reach(rows: list[_Row]) -> float:
    edges = [0.05]
    for row in rows:
        if row.gap is not None:
            edges += [abs(row.gap.gap.value), abs(row.gap.together.low), abs(row.gap.together.high)]
            # A NaN interval (none was asked for) is no edge.
            edges += [abs(e) for e in (row.gap.gap.low, row.gap.gap.high) if not math.isnan(e)]
    return max(edges) * 1.05


def _axis(drawing: Drawing, scale: Scale, layout: _Layout) -> None:
    bottom = drawing.height - 24
    for tick in ticks(scale.low, scale.high, 4 if layout.narrow else 7):
        drawing.line((scale(tick), _HEAD - 6), (scale(tick), bottom), "gridline")
        for y in (_HEAD - 12, bottom + 15):
            drawing.text((scale(tick), y), signed(tick) if tick else "0", "tick", "middle")
    drawing.line((scale(0.0), _HEAD - 6), (scale(0.0), bottom), "axis")
    if layout.narrow:
        drawing.text((layout.left, _HEAD - 28), "gap to all others", "ts")
        return
    drawing.text((layout.right + 18, _HEAD - 12), "gap (interval)", "ts")
    drawing.text((layout.width - 70, _HEAD - 12), "p after Holm", "ts", "end")
    drawing.text((layout.width, _HEAD - 12), "patients", "ts", "end")


def _row(drawing: Drawing, row: _Row, place: tuple[Scale, _Layout, float], how: tuple[str, float]) -> None:
    (scale, layout, y), (metric, alpha) = place, how
    gap = row.gap
    weak = gap is not None and gap.found(alpha) and gap.worse
    if weak:
        drawing.rect((0.0, y), (layout.width, layout.row - 2), "weakrow", rx=4)
    middle = y + layout.row - 18 if layout.narrow else y + layout.row / 2 - 1
    if gap is not None:
        for band, style in ((gap.together, {"class_": "", "fill": _WIDER}), (gap.alone, {"class_": "band"})):
            left, right = scale(band.low), scale(band.high)
            drawing.add("rect", x=left, y=middle - 11, width=right - left, height=22.0, rx=3, **style)
        drawing.line((scale(gap.alone.centre), middle - 11), (scale(gap.alone.centre), middle + 11), "common")
        colour = RED if weak else _INK
        if not math.isnan(gap.gap.low):
            drawing.add(
                "line",
                x1=scale(gap.gap.low),
                x2=scale(gap.gap.high),
                y1=middle,
                y2=middle,
                stroke=colour,
                stroke_width=2.2,
            )
        drawing.marker(
            (scale(gap.gap.value), middle), "circle", colour, hollow=not gap.found(alpha), size=4.6
        )
    _words(drawing, row, (layout, y), (metric, weak))


def _words(drawing: Drawing, row: _Row, place: tuple[_Layout, float], how: tuple[str, bool]) -> None:
    (layout, y), (metric, weak) = place, how
    text, figure = ("tw", "numw") if weak else ("t", "num")
    mark = "▼ " if weak else ""
    said = _unranked(row.group, metric) if row.gap is None else _said(row.gap)
    after = _p(row.gap.holm) if row.gap is not None else ""
    count = f"{row.group.patients:,}" if row.group.patients is not None else NOTHING
    if layout.narrow:
        short = signed(row.gap.gap.value) if row.gap is not None else shortened(row.group.why, 30)
        drawing.text((layout.left, y + 17), mark + shortened(row.group.level, 20), text)
        end = f"{short}  p={after}  n={count}" if after else short
        drawing.text((layout.right, y + 17), end, figure if row.gap is not None else "ts", "end")
        return
    middle = y + layout.row / 2 + 3
    drawing.text((10.0, middle), mark + shortened(row.group.level, 26), text)
    if row.gap is None:
        drawing.text((layout.right + 18, middle), shortened(said, 52), "ts")
    else:
        drawing.text((layout.right + 18, middle), said, figure)
        drawing.text((layout.width - 70, middle), after, figure, "end")
    drawing.text((layout.width, middle), count, "num", "end")


def _said(gap: Gap) -> str:
    return signed(gap.gap.value) if math.isnan(gap.gap.low) else difference(gap.gap)


def _unranked(group: Group, metric: str) -> str:
    """The figure of a group without a place, and why it has none."""
    why = group.why or "cannot be told from its hospital"
    return f"{estimate(group.figures[metric])}: {why}" if metric in group.figures else why


def _name(family: Family) -> str:
    words = " × ".join(family_name(name) for name in family)
    return words[:1].upper() + words[1:]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _csv(rows: list[_Row], alpha: float) -> str:
    header = ("family", "group", "patients", "value", "gap", "low", "high", "chance_low", "chance_high")
    more = ("together_low", "together_high", "p", "p_holm", "found", "why_not_judged")
    return csv_uri(header + more, [_csv_row(row, alpha) for row in rows])


def _csv_row(row: _Row, alpha: float) -> tuple[str | int | float | None, ...]:
    gap, group = row.gap, row.group
    start = (" × ".join(group.family), group.level, group.patients)
    if gap is None:
        return (*start, *(None,) * 11, group.why)
    figures = (gap.value, gap.gap.value, *(None if math.isnan(e) else e for e in (gap.gap.low, gap.gap.high)))
    bands = (gap.alone.low, gap.alone.high, gap.together.low, gap.together.high)
    return (*start, *figures, *bands, gap.p, gap.holm, "yes" if gap.found(alpha) else "no", "")
