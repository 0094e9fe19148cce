"""The page of a sweep: AUROC over epsilon, one line per trainable part and K, intervals drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup
from rich.table import Table as Shown

from common.cli import grid
from common.messages import Estimate
from common.pages.page import Cell, Figure, Table, csv_uri, estimate, moment, render, two, write_whole
from common.pages.svg import Drawing, Scale, ticks
from simulations.frontier.points import FrontierRecord, PointRecord

PARTS: Final = {
    "head": ("head", "#0072b2", "circle"),
    "adapters": ("adapters and head", "#009e73", "square"),
    "all": ("the whole network", "#d55e00", "triangle"),
    "last-block": ("last block and head", "#cc79a7", "diamond"),
    "norms-and-head": ("norms and head", "#3a3a3a", "diamond"),
}
"""How a trainable part is named and drawn; colours of Okabe and Ito (2008)."""


@dataclass(frozen=True)
class Line:
    """One line of the figure: a trainable part with one K."""

    part: str
    views: int
    dense: bool
    """Whether this is the largest K, drawn whole and filled; smaller ones are dashed and hollow."""
    points: dict[float, PointRecord]
    """By epsilon; infinity without privacy."""

    @property
    def label(self) -> str:
        """In words."""
        return f"{PARTS[self.part][0]}, K = {self.views}"


def write_page(record: FrontierRecord, path: Path) -> None:
    """Write the page, whole or not at all; every number comes from the record."""
    lines = lines_of(record)
    values: dict[str, object] = {
        "record": record,
        "moment": moment(record.created),
        "keys": [(_key(line), line.label) for line in lines],
        "figure": _figure(record, lines),
        "table": _table(record, lines),
        "hospitals": _hospitals(record, lines),
        "best": _best(lines),
        "codes": len({p.code_digest for p in record.points}),
    }
    write_whole(render("frontier.html", Path(__file__).parent, values), path)


def lines_of(record: FrontierRecord) -> list[Line]:
    """The lines of a sweep: parts in the order of `PARTS`, larger K first."""
    found: dict[tuple[str, int], dict[float, PointRecord]] = {}
    for one in record.points:
        key = (one.point.part, one.point.views)
        found.setdefault(key, {})[math.inf if one.point.epsilon is None else one.point.epsilon] = one
    most = max((views for _, views in found), default=1)
    order = list(PARTS)
    keys = sorted(found, key=lambda key: (order.index(key[0]), -key[1]))
    return [Line(part, views, views == most, found[part, views]) for part, views in keys]


def summary(record: FrontierRecord) -> Shown:
    """The sweep in one table for the terminal."""
    lines = lines_of(record)
    columns = ("may learn", "K", "network", "numbers", *(_epsilon(e) for e in _epsilons(lines)))
    rows = (
        (
            PARTS[line.part][0],
            line.views,
            _any(line).network,
            f"{_any(line).trainable:,}",
            *(estimate(_mean(line, e)) for e in _epsilons(lines)),
        )
        for line in lines
    )
    note = f"  {len(record.missing)} settings not run" if record.missing else ""
    return grid(f"{record.name}: mean AUROC over hospitals{note}", columns, rows)


def _epsilons(lines: list[Line]) -> list[float]:
    return sorted({epsilon for line in lines for epsilon in line.points})


def _epsilon(value: float) -> str:
    return "no privacy" if math.isinf(value) else f"\u03b5 = {value:g}"


def _mean(line: Line, epsilon: float) -> Estimate | None:
    record = line.points.get(epsilon)
    return record.mean if record else None


def _any(line: Line) -> PointRecord:
    return next(iter(line.points.values()))


def _figure(record: FrontierRecord, lines: list[Line]) -> Figure:
    numbers = [
        (line.part, line.views, "" if math.isinf(e) else e, p.mean.value, p.mean.low, p.mean.high)
        for line in lines
        for e, p in sorted(line.points.items())
        if p.mean is not None
    ]
    return Figure(
        "AUROC over the privacy budget",
        curve(lines, (680.0, 320.0)),
        curve(lines, (372.0, 300.0)),
        patients=f"{_patients(record)} Mean over the hospitals that trained, with {record.confidence:.0%} intervals of test patients.",
        note="One training a point: what noise drew by chance is in a point, and not in its interval.",
        csv=csv_uri(("trainable", "k", "epsilon", "auroc", "low", "high"), numbers),
    )


def curve(lines: list[Line], size: tuple[float, float]) -> Markup:
    """The lines over epsilon, [width, height] in pixels; epsilons stand at equal distances."""
    width, height = size
    epsilons = _epsilons(lines)
    means = [m for line in lines for e in epsilons if (m := _mean(line, e))]
    drawing = Drawing(width, height, _alt(lines, epsilons))
    drawing.text((0.0, 14.0), "Mean AUROC", "tb")
    if not means:
        drawing.text((0.0, 40.0), "Nothing was released.", "ts")
        return drawing.svg()
    low = min(0.5, math.floor(min(m.low for m in means) * 20) / 20)
    y = Scale(low, 1.0, height - 40, 28.0)
    x = Scale(-0.5, len(epsilons) - 0.5, 40.0, width - 8)
    for tick in ticks(low, 1.0, 5):
        drawing.line((x.start, y(tick)), (x.end, y(tick)), "gridline")
        drawing.text((x.start - 6, y(tick) + 4), f"{tick:g}", "tick", "end")
    for index, epsilon in enumerate(epsilons):
        drawing.text((x(index), y.start + 18), _epsilon(epsilon), "tick", "middle")
    drawing.line((x.start, y.start), (x.end, y.start), "axis")
    for number, line in enumerate(lines):
        beside = (number - (len(lines) - 1) / 2) * 0.09
        _line(drawing, line, [(x(i + beside), _mean(line, e)) for i, e in enumerate(epsilons)], y)
    return drawing.svg()


def _line(drawing: Drawing, line: Line, points: list[tuple[float, Estimate | None]], y: Scale) -> None:
    _, colour, shape = PARTS[line.part]
    way = [None if m is None else (at, y(m.value)) for at, m in points]
    dash = "none" if line.dense else "5 3"
    drawing.path(way, "curve", stroke=colour, stroke_width=1.7, stroke_dasharray=dash)
    for at, m in points:
        if m is not None:
            drawing.add("line", x1=at, x2=at, y1=y(m.low), y2=y(m.high), stroke=colour, stroke_width=1.2)
            drawing.marker((at, y(m.value)), shape, colour, hollow=not line.dense, size=4.0)


def _alt(lines: list[Line], epsilons: list[float]) -> str:
    said = "; ".join(
        f"{line.label}: " + ", ".join(f"{_epsilon(e)} {estimate(_mean(line, e))}" for e in epsilons)
        for line in lines
    )
    return f"Mean AUROC over epsilon. {said or 'Nothing was released'}."


def _key(line: Line) -> Markup:
    _, colour, shape = PARTS[line.part]
    drawing = Drawing(16.0, 14.0, line.label)
    drawing.marker((8.0, 7.0), shape, colour, hollow=not line.dense)
    return drawing.svg("keymark")


def _patients(record: FrontierRecord) -> str:
    counts = [n for n in record.points[0].patients.values() if n is not None] if record.points else []
    return f"{sum(counts):,} test patients in released cells." if counts else ""


def _table(record: FrontierRecord, lines: list[Line]) -> Table:
    epsilons = _epsilons(lines)
    rows = tuple(
        (
            Cell(PARTS[line.part][0], note=_any(line).network),
            Cell(str(line.views)),
            Cell(f"{_any(line).trainable:,}"),
            *(Cell(estimate(_mean(line, e)), note=_cost(line.points.get(e))) for e in epsilons),
        )
        for line in lines
    )
    note = (
        "Under each figure: \u03c3, the noise in units of the clip, and the time of the setting on one core."
    )
    missing = f" Not run yet: {', '.join(record.missing)}." if record.missing else ""
    header = ("May learn", "K", "Numbers that learn", *(_epsilon(e) for e in epsilons))
    return Table("Mean AUROC over the hospitals that trained", header, rows, note=note + missing)


def _cost(record: PointRecord | None) -> str:
    if record is None:
        return ""
    noise = "" if record.noise is None else f"\u03c3 {two(record.noise)}, "
    return f"{noise}{record.seconds:,.0f} s" + (", subset" if record.subset else "")


def _hospitals(record: FrontierRecord, lines: list[Line]) -> list[Table]:
    """One table per hospital: sharing and noise may do to one what the mean does not show."""
    epsilons = _epsilons(lines)
    names = sorted({name for point in record.points for name in point.sites})
    header = ("May learn", "K", *(_epsilon(e) for e in epsilons))
    return [
        Table(
            name,
            header,
            tuple(
                (
                    Cell(PARTS[line.part][0]),
                    Cell(str(line.views)),
                    *(Cell(estimate(_at(line, e, name))) for e in epsilons),
                )
                for line in lines
            ),
        )
        for name in names
    ]


def _at(line: Line, epsilon: float, name: str) -> Estimate | None:
    record = line.points.get(epsilon)
    return record.sites.get(name) if record else None


def _best(lines: list[Line]) -> list[str]:
    """At each epsilon, the setting with the highest mean, and those that cannot be told from it."""
    said = []
    for epsilon in _epsilons(lines):
        found = sorted(
            ((m, line.label) for line in lines if (m := _mean(line, epsilon))), key=lambda p: -p[0].value
        )
        if found:
            top, label = found[0]
            near = [name for m, name in found[1:] if m.high >= top.value]
            beside = f"; not told apart from it: {', '.join(near)}" if near else ""
            said.append(f"{_epsilon(epsilon)}: {label}, {estimate(top)}{beside}.")
    return said
