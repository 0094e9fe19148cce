"""The tables of the consortium's report; every cell comes from a record."""

from __future__ import annotations

from typing import Final

from common.messages import Estimate, GroupMetrics
from common.pages.page import (
    NOTHING,
    Cell,
    Table,
    Value,
    count,
    csv_uri,
    estimate,
    signed,
    two,
)
from server.records import ArmRecord, FederationRecord, RunRecord, SimulationOnly
from server.reports import select
from server.reports.crowds import crowd, cut, gathered, released
from server.reports.reasons import meaning
from server.reports.statistics import GroupRow, family_name, group_rows, weak_groups
from server.reports.words import hospitals, mean_auroc, mean_gap, site_gap

METRICS: Final = ("sensitivity", "specificity", "precision", "f1", "auprc")

_TITLES: Final = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "auprc": "AUPRC",
}

GAPS: Final = (
    ("federated", "alone", "Gain of federation"),
    ("personalised", "alone", "Gain of federation with personalisation"),
    ("federated-dp", "alone", "Gain of private federation"),
    ("personalised-dp", "alone", "Gain of private federation with personalisation"),
    ("federated", "federated-dp", "Cost of privacy"),
    ("pooled", "federated", "Cost of not pooling"),
)
"""Differences that are shown where both models were released: model, other, name."""


def least(record: RunRecord) -> int:
    """The smallest count that may leave a hospital; 11 where the plan is not in the record."""
    plan = select.plan_of(record)
    return plan.evaluation.min_cell if plan else 11


def arms(record: RunRecord) -> Table:
    """AUROC of every model at every hospital, the mean over hospitals first."""
    series = select.all_series(record)
    means = {name: mean_auroc(record, name) for name in series}
    top, held = [Cell("Mean over hospitals", "total")], least(record)
    for name in series:
        found = means[name]
        top.append(Cell(estimate(found[0]), note=hospitals(len(found[1]))) if found else Cell(NOTHING))
    rows = [tuple(top)]
    numbers: list[tuple[Value, ...]] = []
    for site in select.sites(record):
        groups = {name: select.group_of(series[name].get(site)) for name in series}
        if not any(groups.values()):
            continue
        n = next((select.patients(g) for g in groups.values() if g is not None), None)
        note = f"{count(n, held)} test patients"
        note += ", only tested" if site in record.external else ""
        rows.append((Cell(site, note=note), *(_auroc_cell(g) for g in groups.values())))
        numbers += [(site, name, *_triple(g.auroc), n) for name, g in groups.items() if g and g.auroc]
    return Table(
        "AUROC of every model at every hospital, with intervals",
        ("Hospital", *(select.look(name).label for name in series)),
        gathered(cut(rows, record), released),
        csv_uri(("hospital", "model", "auroc", "low", "high", "patients"), numbers),
        "In the mean every hospital counts the same, whatever its size; those that only tested are left out. "
        f"{crowd(record).words}".strip(),
    )


def _auroc_cell(group: GroupMetrics | None) -> Cell:
    if group is None:
        return Cell(NOTHING, "muted")
    if group.auroc is None:
        return Cell(select.absent(group), "muted")
    return Cell(estimate(group.auroc))


def _triple(e: Estimate | None) -> tuple[Value, Value, Value]:
    return (e.value, e.low, e.high) if e is not None else (None, None, None)


def gaps(record: RunRecord) -> Table:
    """What federation gave and what privacy cost, on average and at every hospital."""
    shown = [(gap, name) for model, other, name in GAPS if (gap := mean_gap(record, model, other))]
    rows = []
    numbers: list[tuple[Value, ...]] = []
    sizes = sorted({len(gap.sites) for gap, _ in shown})
    top = [
        Cell(
            "Mean over hospitals",
            "total",
            hospitals(sizes[0]) if len(sizes) == 1 else f"{' or '.join(map(str, sizes))} hospitals",
        )
    ]
    top += [_change_cell(gap.change) for gap, _ in shown]
    rows.append(tuple(top))
    for site in select.sites(record):
        cells = [Cell(site)]
        for gap, name in shown:
            found = site_gap(record, site, gap.model, gap.other)
            cells.append(_gap_cell(found, name))
            if found:
                numbers.append((site, name, *_triple(found[0]), "paired" if found[1] else "unpaired"))
        if any(cell.text != NOTHING for cell in cells[1:]):
            rows.append(tuple(cells))
    return Table(
        "Differences in AUROC, with intervals",
        ("Hospital", *(name for _, name in shown)),
        tuple(cut(rows, record)) if shown else (),
        csv_uri(("hospital", "difference", "value", "low", "high", "kind"), numbers),
        "Paired on the same test patients unless marked. Green or red: the interval does not reach zero. "
        f"{crowd(record).words}".strip(),
    )


def _gap_cell(found: tuple[Estimate, bool] | None, name: str) -> Cell:
    if found is None:
        return Cell(NOTHING, "muted")
    change, paired = found
    style = ""
    if change.low > 0 or change.high < 0:
        bad = (change.high < 0) != name.startswith("Cost")
        style = "weak" if bad else "good"
    return _change_cell(change, "" if paired else ", unpaired", style)


def _change_cell(change: Estimate, more: str = "", style: str = "") -> Cell:
    return Cell(signed(change.value), style, f"{signed(change.low)} to {signed(change.high)}{more}")


def weak(record: RunRecord, series: list[str]) -> Table:
    """Every group that lies below the band of chance under any of these models, beside the other models."""
    rows = {name: {(r.family, r.name): r for r in group_rows(record, name)} for name in series}
    found = list(dict.fromkeys((r.family, r.name) for name in series for r in weak_groups(record, name)))
    cells = []
    for key in found:
        shown = [rows[name][key] for name in series if key in rows[name]]
        head = Cell(key[1], note=family_name(key[0]))
        cells.append((head, *map(_weak_cell, shown), Cell(f"{shown[0].patients:,}")))
    header = ("Group", *(select.look(name).label for name in series), "Test patients")
    note = "Red: below the band. Under each figure: the lowest that chance alone would give."
    return Table("Groups below what chance alone would give", header, tuple(cells), note=note)


def _weak_cell(row: GroupRow) -> Cell:
    if row.auroc is None:
        return Cell(row.absent, "muted")
    edge = f"chance from {two(row.band.low)}" if row.band else ""
    return Cell(estimate(row.auroc), "weak" if row.weak else "", edge)


def threshold(record: RunRecord, series: str) -> Table:
    """Sensitivity, specificity and the rest at the one shared threshold."""
    by_site, held = select.all_series(record).get(series, {}), least(record)
    rows = []
    numbers: list[tuple[Value, ...]] = []
    for site in select.sites(record):
        group = select.group_of(by_site.get(site))
        if group is None:
            continue
        head = (Cell(site), Cell(count(group.positives, held)), Cell(count(group.negatives, held)))
        rows.append((*head, *(_metric_cell(getattr(group, name), group) for name in METRICS)))
        numbers += [
            (site, name, *_triple(getattr(group, name)), group.positives, group.negatives)
            for name in METRICS
            if getattr(group, name) is not None
        ]
    header = ("Hospital", "With finding", "Without", *(_TITLES[name] for name in METRICS))
    shared = sorted({two(m.threshold) for m in by_site.values()})
    return Table(
        f"{select.look(series).label}, threshold {', '.join(shared)}",
        header,
        gathered(cut(rows, record), lambda row: released(row[2:])),
        csv_uri(("hospital", "metric", "value", "low", "high", "positives", "negatives"), numbers),
        f"Precision and F1 depend on how common the finding is at the hospital. {crowd(record).words}".strip(),
    )


def _metric_cell(value: Estimate | None, group: GroupMetrics) -> Cell:
    return Cell(estimate(value)) if value is not None else Cell(select.absent(group), "muted")


def participation(record: RunRecord) -> Table:
    """Who was expected, who came, who trained, per arm with rounds."""
    rows = [
        _participation_row(arm, arm.federation)
        for arm in select.federated_arms(record)
        if arm.federation is not None
    ]
    header = ("Arm", "Expected", "Registered", "Trained in every round", "Rounds", "State", "Missing")
    return Table("Who took part", header, tuple(rows))


def _participation_row(arm: ArmRecord, run: FederationRecord) -> tuple[Cell, ...]:
    missing = sorted(set(run.expected) - set(run.trained))
    subset = run.subset or bool(missing)
    state = "subset" if subset else run.status
    return (
        Cell(select.look(arm.arm).label),
        *(Cell(str(len(who))) for who in (run.expected, run.registered, run.trained)),
        Cell(str(len(run.rounds))),
        Cell(state, "good" if state == "completed" else "weak", run.status if subset else ""),
        Cell(", ".join(missing) or NOTHING, "text"),
    )


def refused_replies(record: RunRecord) -> Table:
    """Replies that did not enter: by arm, hospital and code."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for arm in select.federated_arms(record):
        early = arm.federation.refused if arm.federation else {}
        for site, code in early.items():
            found.setdefault((arm.arm, site, code), []).append("before the first")
        for each in arm.federation.rounds if arm.federation else ():
            for site, code in each.refused.items():
                found.setdefault((arm.arm, site, code), []).append(str(each.round))
    rows = tuple(
        (
            Cell(site, note=select.look(arm).label),
            Cell(code, "text", meaning(code, reply=True)[0]),
            Cell(", ".join(rounds), "text"),
            Cell(meaning(code, reply=True)[1], "text"),
        )
        for (arm, site, code), rounds in sorted(found.items())
    )
    return Table("Replies that were refused or missing", ("Hospital", "Code", "Rounds", "What to do"), rows)


def intake(record: RunRecord) -> Table:
    """Files received, accepted and refused per hospital."""
    held = least(record)
    rows = []
    numbers: list[tuple[Value, ...]] = []
    for site, summary in sorted(select.intake(record).items()):
        refused = sorted(summary.refused.items())
        listed = "; ".join(f"{code} {count(n, held)}" for code, n in refused)
        figures = (summary.received, summary.accepted)
        rows.append(
            (
                Cell(site),
                *(Cell(count(n, held)) for n in figures),
                Cell(listed or "none", "text"),
                Cell(f"{summary.patients_bucket:,}"),
            )
        )
        numbers += [(site, "received", summary.received), (site, "accepted", summary.accepted)]
        numbers += [(site, code, n) for code, n in refused]
    header = ("Hospital", "Files received", "Accepted", "Refused", "Training patients (public bucket)")
    note = f"Counts below {held} are held back and shown as <{held}. Patients are a public bucket, never a count."
    return Table(
        "What each hospital received",
        header,
        gathered(
            cut(rows, record),
            lambda row: row[3].text != "none",
            "no file was refused there; the download has their counts",
        ),
        csv_uri(("hospital", "what", "files"), numbers),
        note,
    )


def refusal_codes(record: RunRecord) -> Table:
    """Every reason for which a file was refused anywhere, with its remedy."""
    codes = sorted({code for summary in select.intake(record).values() for code in summary.refused})
    rows = tuple(
        (Cell(code), Cell(meaning(code)[0], "text"), Cell(meaning(code)[1], "text")) for code in codes
    )
    return Table("Why files were refused, and what to do", ("Code", "Reason", "Remedy"), rows)


def privacy_audit(only: SimulationOnly) -> Table:
    """What attacks got out of the code that ran, without protection and with it; no row where none was added."""
    styles = {True: "good", False: "weak", None: ""}
    rows = tuple(
        (Cell(a.attack), Cell(a.protection, "text"), Cell(a.result, styles[a.good])) for a in only.audit
    )
    return Table(
        "Attacks on what hospitals send",
        ("Attack", "Protection", "Result"),
        rows,
        csv_uri(("attack", "protection", "result"), [[cell.text for cell in row] for row in rows]),
        "On virtual patients; the pictures and what each attack assumes are in audit.html of the same folder.",
    )
