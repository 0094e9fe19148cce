"""The page of a comparison: mean and worst hospital for each way with intervals over seeds, change and cost beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup
from rich.table import Table as Shown

from common.cli import grid
from common.messages import Estimate
from common.pages.page import (
    NOTHING,
    Cell,
    Figure,
    Table,
    csv_uri,
    difference,
    moment,
    render,
    write_whole,
)
from common.pages.svg import Drawing, Scale, ticks
from server.reports.reasons import meaning
from simulations.compare.cells import Compared, Row
from simulations.compare.sites_told import bounded, change, hospitals, three
from simulations.compare.ways import BASE

MEAN: Final = ("mean of the hospitals", "#0072b2", "circle")
WORST: Final = ("hospital served worst", "#d55e00", "diamond")
"""Colours of Okabe and Ito (2008)."""
_STEP: Final = 30.0
"""Pixels from one way to the next."""


def write_page(record: Compared, path: Path) -> None:
    """Write the page, whole or not at all; every number comes from the record."""
    values: dict[str, object] = {
        "record": record,
        "moment": moment(record.created),
        "keys": [(_key(colour, shape, label), label) for label, colour, shape in (MEAN, WORST)],
        "figure": _figure(record),
        "table": _table(record),
        "sites": _sites(record),
        "said": said(record),
        "refused": [row for row in record.rows if row.refused],
        "codes": len({cell.code_digest for cell in record.cells if not cell.failed}),
    }
    write_whole(render("compare.html", Path(__file__).parent, values), path)


def summary(record: Compared) -> Shown:
    """The comparison in one table for the terminal."""
    columns = ("method", "mean AUROC", "worst hospital", "mean \u2212 fedavg", "worst \u2212 fedavg")
    rows = (
        (
            row.way,
            *(
                (f"refused: {row.refused}", "", "", "", "", "", "")
                if row.refused
                else (
                    three(row.mean),
                    three(row.worst),
                    change(row.mean_change),
                    change(row.worst_change),
                    _error(row),
                    *_cost(row),
                )
            ),
        )
        for row in record.rows
    )
    left = f"  {len(record.missing)} not run" if record.missing else ""
    title = f"{record.name}: AUROC over {_seeds(record)}, 95% intervals{left}"
    return grid(title, (*columns, "ECE", "rounds, MB", "CPU s"), rows)


def _seeds(record: Compared) -> str:
    return "1 seed" if len(record.seeds) == 1 else f"{len(record.seeds)} seeds"


def said(record: Compared) -> list[str]:
    """What differs from FedAvg beyond chance over these seeds; and that nothing does, where nothing does."""
    found = []
    for row in record.rows:
        for apart, what in ((row.mean_change, MEAN[0]), (row.worst_change, WORST[0])):
            if apart is not None and (apart.low > 0 or apart.high < 0):
                word = "better" if apart.low > 0 else "worse"
                found.append(f"{row.way}: {word} than {BASE} for the {what}, {difference(apart)}.")
    if len(record.seeds) < 2:
        return ["One seed tells nothing about chance: repeat with more.", *ended(record)]
    if not any(row.mean_change for row in record.rows):
        return [
            f"Nothing was compared: no other way has a figure in two seeds in which {BASE} has one.",
            *ended(record),
        ]
    return [
        *(found or [f"Over {len(record.seeds)} seeds, nothing differs from {BASE} beyond chance."]),
        *ended(record),
    ]


def ended(record: Compared) -> list[str]:
    """What ended ways before they had a figure, in words, and what to do; one line for each reason."""
    whose: dict[str, list[str]] = {}
    for row in record.rows:
        for seed, code in row.failed.items():
            whose.setdefault(code, []).append(f"{row.way} (seed {seed})")
    return [
        f"Ended without a figure: {', '.join(ways)}. {code}: {meaning(code, reply=True)[0]}. {meaning(code, reply=True)[1]}."
        for code, ways in whose.items()
    ]


def _error(row: Row) -> str:
    return NOTHING if row.calibration is None else f"{row.calibration.value:.3f}"


def _cost(row: Row) -> tuple[str, str]:
    moved = f"{row.rounds}, {row.bytes / 1e6:.1f}" if row.rounds else NOTHING
    ended = f" ({', '.join(f'{s}: {code}' for s, code in row.failed.items())})" if row.failed else ""
    return moved, f"{row.seconds:.0f}{ended}"


def _spent(row: Row) -> str:
    rounds = f"{row.rounds} rounds, " if row.rounds else ""
    ended = "".join(f"; seed {seed} ended: {code}" for seed, code in row.failed.items())
    return f"{rounds}{row.seconds:.0f} s{ended}"


def _figure(record: Compared) -> Figure:
    rows = [row for row in record.rows if row.mean is not None]
    numbers = [
        (
            c.way,
            c.seed,
            c.model,
            c.mean,
            c.worst,
            c.calibration,
            c.rounds,
            c.bytes_up,
            c.bytes_down,
            c.seconds,
        )
        for c in record.cells
    ]
    header = (
        "method",
        "seed",
        "model",
        "mean",
        "worst",
        "ece",
        "rounds",
        "bytes_up",
        "bytes_down",
        "seconds",
    )
    return Figure(
        "AUROC by method",
        drawing(rows, 760.0),
        drawing(rows, 372.0),
        patients=f"{len(record.hospitals)} hospitals, {_seeds(record)}.",
        note="95% intervals of the mean over seeds; the lines are federated averaging's.",
        csv=csv_uri(header, numbers),
    )


def drawing(rows: Sequence[Row], width: float) -> Markup:
    """Ways from top to bottom, mean and worst hospital of each with its interval."""
    height = 62.0 + _STEP * max(1, len(rows))
    picture = Drawing(width, height, _alt(rows))
    shown: list[tuple[Callable[[Row], Estimate | None], tuple[str, str, str], float]] = [
        (lambda row: row.mean, MEAN, -6.0),
        (lambda row: row.worst, WORST, 6.0),
    ]
    known = [_drawn(value) for row in rows for of, _, _ in shown if (value := of(row)) is not None]
    if not known:
        picture.text((0.0, 20.0), "Nothing was measured.", "ts")
        return picture.svg()
    low = max(0.0, math.floor(min(value.low for value in known) * 20) / 20)
    high = min(1.0, math.ceil(max(value.high for value in known) * 20) / 20)
    x = Scale(low, high, 116.0, width - 12)
    for tick in ticks(low, high, 5):
        picture.line((x(tick), 14.0), (x(tick), height - 40), "gridline")
        picture.text((x(tick), height - 22), f"{tick:g}", "tick", "middle")
    picture.text((x.end, height - 4), "AUROC", "ts", "end")
    for number, row in enumerate(rows):
        y = 30.0 + _STEP * number
        picture.text((0.0, y + 4), row.way, "t")
        for of, (_, colour, shape), beside in shown:
            value = of(row)
            if value is None:
                continue
            reach = _drawn(value)
            picture.add(
                "line",
                x1=x(reach.low),
                x2=x(reach.high),
                y1=y + beside,
                y2=y + beside,
                stroke=colour,
                stroke_width=1.6,
            )
            picture.marker((x(value.value), y + beside), shape, colour, size=4.0)
            if row.way == BASE:
                ends = {"y1": 14.0, "y2": height - 40, "stroke_dasharray": "3 3", "stroke_width": 1.0}
                picture.add("line", x1=x(value.value), x2=x(value.value), stroke=colour, **ends)
    return picture.svg()


def _drawn(value: Estimate) -> Estimate:
    return value if bounded(value) else Estimate(value.value, value.value, value.value)


def _alt(rows: Sequence[Row]) -> str:
    each = "; ".join(f"{row.way}: mean {three(row.mean)}, worst {three(row.worst)}" for row in rows)
    return f"AUROC by method. {each or 'Nothing was measured'}."


def _key(colour: str, shape: str, label: str) -> Markup:
    picture = Drawing(16.0, 14.0, label)
    picture.marker((8.0, 7.0), shape, colour)
    return picture.svg("keymark")


def _table(record: Compared) -> Table:
    rows = tuple(
        (
            Cell(row.way, note=f"{row.model} model" if row.model else ""),
            Cell(three(row.mean)),
            Cell(three(row.worst)),
            Cell(change(row.mean_change), _style(row.mean_change)),
            Cell(change(row.worst_change), _style(row.worst_change)),
            Cell(_error(row)),
            Cell(f"{row.bytes / 1e6:.1f} MB" if row.rounds else NOTHING, note=_spent(row)),
        )
        for row in record.rows
        if not row.refused
    )
    header = (
        "Method",
        "Mean AUROC",
        "Hospital served worst",
        "Mean, change",
        "Worst, change",
        "Calibration error",
        "Cost",
    )
    note = (
        f"Changes are from {BASE}, paired by seed. Megabytes are both ways, all hospitals and rounds together; seconds of one "
        "core, hospitals included. Both are means over seeds."
    )
    missing = f" Not run yet: {', '.join(record.missing)}." if record.missing else ""
    return Table("Over seeds", header, rows, note=note + missing)


def _style(apart: Estimate | None) -> str:
    if apart is None or apart.low <= 0 <= apart.high:
        return ""
    return "good" if apart.low > 0 else "weak"


def _sites(record: Compared) -> list[Table]:
    """A mean over hospitals may hide the one that loses."""
    return [
        Table(
            one.title,
            tuple(_bare(cell) for cell in one.header),
            tuple(tuple(_shown(cell) for cell in row) for row in one.rows),
            note=_bare(one.note).replace("Bold:", "In colour:"),
        )
        for one in hospitals(record)
    ]


def _shown(words: str) -> Cell:
    """What is bold in Markdown is more than chance: green above zero, red below."""
    if not words.startswith("**"):
        return Cell(_bare(words))
    return Cell(_bare(words), "good" if words.startswith("**+") else "weak")


def _bare(words: str) -> str:
    return words.replace("**", "").replace("`", "")
