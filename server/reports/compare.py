"""Several runs beside one another: worst-served, mean and best-served hospital, and what the bias lab found in each.

The first run is the one that others are held against. Runs train their own models on hospitals of their own, so differences are
unpaired, and only hospitals of the same name are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import InputError
from common.messages import Estimate
from common.pages.page import (
    Cell,
    Figure,
    Table,
    csv_uri,
    difference,
    estimate,
    moment,
    render,
    two,
    write_whole,
)
from server.records import RunRecord, read_record
from server.reports import bias, mends, select, words
from server.reports.chance import unpaired
from server.reports.rows import Axis, Row, drawn, numbers
from server.reports.statistics import confidence_of

_LEAST: Final = 2


@dataclass(frozen=True)
class Line:
    """What is said of one run."""

    name: str
    record: RunRecord
    series: str
    mean: Estimate | None
    worst: mends.Served | None
    best: mends.Served | None
    alarms: tuple[str, ...] | None
    """Sentences of the bias lab; None where it was not asked."""


@dataclass(frozen=True)
class Compared:
    """What the page and the terminal show."""

    runs: tuple[str, ...]
    table: Table
    differences: Table
    figure: Figure
    warnings: tuple[str, ...]


def records_of(folders: Sequence[Path]) -> list[RunRecord]:
    """The records of runs.

    Raises:
        InputError: a folder holds no run, or fewer than two are given.
    """
    if len(folders) < _LEAST:
        raise InputError("runs", "two are needed to be compared", "Name two folders of runs or more")
    return [record_of(folder) for folder in folders]


def record_of(folder: Path) -> RunRecord:
    """The record of one run.

    Raises:
        InputError: the folder holds no run that ended, or one of another version.
    """
    path = folder / "metrics.json"
    try:
        return read_record(path)
    except OSError:
        raise InputError(
            folder.name, "it holds no run that ended", "Name a folder with metrics.json"
        ) from None
    except ValueError:
        raise InputError(
            folder.name, "its metrics.json is not a record of this version", "Repeat the run"
        ) from None


def compared(records: Sequence[RunRecord]) -> Compared:
    """Every run in a line, beside the first."""
    lines = [_line(record, name) for record, name in zip(records, _names(records), strict=True)]
    return Compared(
        tuple(line.name for line in lines),
        _table(lines),
        _differences(lines),
        _figure(lines),
        tuple(_warnings(records)),
    )


def write_comparison(records: Sequence[RunRecord], path: Path) -> Compared:
    """Write the page, whole or not at all.

    Raises:
        StorageError: when the file cannot be written.
    """
    found = compared(records)
    values: dict[str, object] = {
        "c": found,
        "question": records[0].question if len({record.question for record in records}) == 1 else "",
        "lines": [(_line(r, n)) for r, n in zip(records, found.runs, strict=True)],
        "created": [(n, moment(r.created)) for r, n in zip(records, found.runs, strict=True)],
    }
    write_whole(render("compare.html", Path(__file__).parent, values), path)
    return found


def _line(record: RunRecord, name: str) -> Line:
    series = select.main_series(record) or ""
    whole = words.mean_auroc(record, series) if series else None
    ends = mends.extremes(record, series) if series else None
    told = bias.summary(record)
    return Line(
        name,
        record,
        series,
        whole[0] if whole else None,
        ends[0] if ends else None,
        ends[1] if ends else None,
        tuple(told["sentences"]) if told["asked"] else None,
    )


def _names(records: Sequence[RunRecord]) -> list[str]:
    """What tells the runs apart: the method where it differs, else the study, else the run's own name."""
    for words_of in (_method, lambda r: r.study, lambda r: f"{_method(r)}, seed {r.seed}", lambda r: r.run):
        names = [words_of(record) for record in records]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {record.run}" for number, record in enumerate(records, start=1)]


def _method(record: RunRecord) -> str:
    plan = select.plan_of(record)
    if plan is None:
        return record.run
    parts: list[str] = [plan.federation.strategy]
    if plan.input.normalisation != "zscore":
        parts.append(plan.input.normalisation)
    if plan.personalisation.method != "none":
        parts.append(plan.personalisation.method)
    return ", ".join(parts)


def _table(lines: Sequence[Line]) -> Table:
    rows = tuple(
        (
            Cell(line.name, note=f"{line.record.study}, seed {line.record.seed}"),
            Cell(estimate(line.mean)),
            Cell(estimate(line.worst.auroc), note=line.worst.site)
            if line.worst
            else Cell("not released", "muted"),
            Cell(estimate(line.best.auroc), note=line.best.site)
            if line.best
            else Cell("not released", "muted"),
            _alarms(line),
            Cell(two(words.epsilon_spent(line.record))),
        )
        for line in lines
    )
    return Table(
        "Every run, by the model its report is about",
        ("Run", "Mean AUROC", "Served worst", "Served best", "Shortcut alarms", "ε"),
        rows,
        csv=csv_uri(
            ("run", "model", "mean", "worst", "worst_site", "best", "best_site", "alarms"),
            [
                (
                    line.record.run,
                    line.series,
                    line.mean.value if line.mean else None,
                    line.worst.auroc.value if line.worst else None,
                    line.worst.site if line.worst else "",
                    line.best.auroc.value if line.best else None,
                    line.best.site if line.best else "",
                    len(line.alarms) if line.alarms is not None else None,
                )
                for line in lines
            ],
        ),
    )


def _alarms(line: Line) -> Cell:
    if line.alarms is None:
        return Cell("not asked", "muted")
    return Cell(str(len(line.alarms)), "weak" if line.alarms else "good")


def _differences(lines: Sequence[Line]) -> Table:
    """Each run less the first, at the hospitals that the first serves worst and best."""
    first = lines[0]
    if first.worst is None or first.best is None:
        return Table("Differences", ("Run",), ())
    rows = []
    numbers_: list[tuple[str | float | None, ...]] = []
    for line in lines[1:]:
        gaps = [_gap(line, first, served) for served in (first.worst, first.best)]
        rows.append((Cell(line.name), *(_gap_cell(gap) for gap in gaps)))
        numbers_.append(
            (line.record.run, *(v for g in gaps for v in ((g.value, g.low, g.high) if g else (None,) * 3)))
        )
    return Table(
        f"Less {first.name}: what it mends, and what it costs whoever is served best",
        ("Run", f"{first.worst.site}, served worst there", f"{first.best.site}, served best there"),
        tuple(rows),
        csv=csv_uri(
            ("run", "worst_change", "worst_low", "worst_high", "best_change", "best_low", "best_high"),
            numbers_,
        ),
        note="Unpaired: intervals allow for different patients. Green and red: more than chance.",
    )


def _gap(line: Line, first: Line, served: mends.Served) -> Estimate | None:
    group = select.group_of(select.all_series(line.record).get(line.series, {}).get(served.site))
    if group is None or group.auroc is None:
        return None
    return unpaired(group.auroc, served.auroc, confidence_of(first.record))


def _gap_cell(gap: Estimate | None) -> Cell:
    if gap is None:
        return Cell("no such hospital", "muted")
    return Cell(difference(gap), "good" if gap.low > 0 else "weak" if gap.high < 0 else "")


def _figure(lines: Sequence[Line]) -> Figure:
    rows = []
    for line in lines:
        marks = (
            ("served worst", line.worst.auroc if line.worst else None, "diamond"),
            ("mean", line.mean, "circle"),
            ("served best", line.best.auroc if line.best else None, "square"),
        )
        rows += [
            Row(line.name, label, value, estimate(value), marker=marker)
            for label, value, marker in marks
            if value is not None
        ]
    low = min([0.5, *(int(row.figure.low * 10) / 10 for row in rows)])
    wide, narrow = drawn(rows, Axis("AUROC", low, 1.0))
    return Figure(
        "AUROC where each model does worst, on average, and best",
        wide,
        narrow,
        note="Diamond: the hospital served worst. Square: the one served best. They may be other hospitals in another run.",
        patients="Test patients of each run; lines are intervals.",
        csv=numbers(rows),
    )


def _warnings(records: Sequence[RunRecord]) -> list[str]:
    first, found = records[0], []
    if len({record.question for record in records}) > 1:
        found.append("The runs answer different questions.")
    if len({record.seed for record in records}) > 1:
        found.append(
            "The runs have different seeds: other patients, so that differences hold chance of the draw, too."
        )
    if any(set(select.sites(record)) != set(select.sites(first)) for record in records):
        found.append("The runs have different hospitals.")
    if len({record.simulated for record in records}) > 1:
        found.append("Some runs are simulations and some are not.")
    return found


def plain_table(found: Compared) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows for a terminal."""
    return found.table.header, [tuple(cell.text for cell in row) for row in found.table.rows]
