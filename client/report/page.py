"""The hospital's own report as one self-contained HTML file; it stays in the hospital (law 7)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from markupsafe import Markup

from client.report.data import CaseImage, LedgerState, ScoredCase, SiteReportData
from client.report.pictures import grey, overlay, png_uri, quality_panel, score_histogram
from common.messages import Estimate, GroupMetrics
from common.pages.page import Cell, Figure, Table, csv_uri, estimate, moment, render, two, write_whole

_METRICS = ("auroc", "auprc", "sensitivity", "specificity", "precision", "f1")
_TITLES = ("AUROC", "AUPRC", "Sensitivity", "Specificity", "Precision", "F1")


def write_site_report(data: SiteReportData, path: Path) -> None:
    """Write the hospital's own report to `path`, whole or not at all.

    Raises:
        StorageError: when the file cannot be written.
    """
    write_whole(site_html(data), path)


def site_html(data: SiteReportData) -> str:
    """The report as text."""
    values: dict[str, Any] = {
        "data": data,
        "moment": moment(data.created),
        "hits": [_case(c) for c in data.cases if c.hit],
        "misses": [_case(c, data.metrics.threshold) for c in data.cases if not c.hit],
        "metrics": _metrics(data),
        "scores": _scores(data),
        "table": _score_table(data),
        "refused": _refused(data),
        "quality": _quality(data),
        "spent": _spent(data.ledger),
        "actions": _actions(data),
    }
    return render("site.html", Path(__file__).parent, values)


def _case(image: CaseImage, threshold: float | None = None) -> dict[str, str]:
    case = image.case
    kind = "finding present" if case.truth else "finding absent"
    if threshold is not None:
        kind += ", called present" if case.score >= threshold else ", called absent"
    return {
        "plain": png_uri(grey(image.pixels)),
        "heat": png_uri(overlay(image.pixels, image.heat)),
        "score": two(case.score),
        "kind": kind,
        "who": case.pseudonym,
        "where": ", ".join(part for part in (case.projection, case.manufacturer) if part),
        "empty": "" if image.heat.any() else "No part of the image speaks for the finding: the map is empty.",
    }


def _metrics(data: SiteReportData) -> Table:
    rows = []
    numbers: list[tuple[str | float | int | None, ...]] = []
    for group in data.metrics.groups:
        rows.append((Cell(_group_name(group)), *_counts(group), *(_metric(group, m) for m in _METRICS)))
        for name in _METRICS:
            value = getattr(group, name)
            if isinstance(value, Estimate):
                numbers.append((group.group, group.level, name, value.value, value.low, value.high))
    header = ("Patients", "With finding", "Without", *_TITLES)
    return Table(
        f"Test patients at threshold {two(data.metrics.threshold)}, exact",
        header,
        tuple(rows),
        csv_uri(("group", "level", "metric", "value", "low", "high"), numbers),
    )


def _group_name(group: GroupMetrics) -> str:
    return "All" if group.group == "all" else f"{group.group}: {group.level}"


def _counts(group: GroupMetrics) -> tuple[Cell, Cell]:
    return (Cell(f"{group.positives or 0:,}"), Cell(f"{group.negatives or 0:,}"))


def _metric(group: GroupMetrics, name: str) -> Cell:
    value = getattr(group, name)
    return Cell(estimate(value)) if value is not None else Cell("one class only", "muted")


def _scores(data: SiteReportData) -> Figure:
    drawn = score_histogram(data.scores, data.metrics.threshold)
    people = len({case.pseudonym for case in data.scores})
    return Figure(
        "Scores of the test images",
        drawn,
        patients=f"{len(data.scores):,} images of {people:,} test patients.",
        csv=csv_uri(
            ("patient", "score", "finding", "projection", "manufacturer"),
            [(c.pseudonym, c.score, int(c.truth), c.projection, c.manufacturer) for c in data.scores],
        ),
    )


def _score_table(data: SiteReportData) -> Table:
    threshold = data.metrics.threshold
    ordered = sorted(data.scores, key=lambda case: (-case.score, case.pseudonym))
    rows = tuple(_score_row(case, threshold) for case in ordered)
    header = ("Patient (pseudonym)", "Score", "Finding", "Called", "Projection", "Scanner")
    return Table("Every test image", header, rows)


def _score_row(case: ScoredCase, threshold: float) -> tuple[Cell, ...]:
    called = case.score >= threshold
    return (
        Cell(case.pseudonym),
        Cell(f"{case.score:.3f}"),
        Cell("present" if case.truth else "absent"),
        Cell("present" if called else "absent", "" if called == case.truth else "weak"),
        Cell(case.projection),
        Cell(case.manufacturer),
    )


def _refused(data: SiteReportData) -> Table:
    rows = tuple(
        (Cell(r.code), Cell(f"{r.files:,}"), Cell(r.rule, "text"), Cell(r.remedy, "text"))
        for r in data.intake.refused
    )
    numbers = [(r.code, r.files, r.rule, r.remedy) for r in data.intake.refused]
    address = csv_uri(("code", "files", "rule", "remedy"), numbers)
    return Table("Files in quarantine, and what to do", ("Code", "Files", "Reason", "Remedy"), rows, address)


def _quality(data: SiteReportData) -> Figure:
    grid = Markup("").join(quality_panel(figure) for figure in data.quality)
    numbers = [
        (figure.name, scanner, value)
        for figure in data.quality
        for scanner, values in figure.by_scanner.items()
        for value in values
    ]
    return Figure(
        "Quality of the accepted images, by scanner",
        Markup('<div class="grid">') + grid + Markup("</div>"),
        note="Bar: the middle nine tenths. Mark: the median. No figure has a unit.",
        patients=f"{data.intake.accepted:,} accepted files of {data.intake.patients:,} patients.",
        csv=csv_uri(("figure", "scanner", "value"), numbers),
    )


def _spent(ledger: LedgerState) -> str:
    if ledger.epsilon is None:
        return f"The ledger could not be read here ({ledger.problem})."
    if math.isinf(ledger.epsilon):
        return "Infinite: a model, or figures of one, left here without differential privacy."
    return f"\u03b5 = {two(ledger.epsilon)} at \u03b4 = {ledger.delta:g}, for the patient who spent most."


def _actions(data: SiteReportData) -> Table:
    rows = tuple((Cell(action), Cell(f"{n:,}")) for action, n in data.deid.actions.items())
    return Table("Attributes by what is done to them", ("Action", "Attributes"), rows)
