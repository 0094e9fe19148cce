"""The consortium's report: one self-contained HTML file, from released summaries only (laws 7, 8, 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from common.pages.page import (
    Cell,
    Figure,
    Table,
    count,
    csv_uri,
    estimate,
    moment,
    render,
    signed,
    two,
    write_whole,
)
from server.records import ArmRecord, RunRecord, SimulationOnly
from server.reports import bias, crowds, panels, select, tables, words
from server.reports.aggregation import aggregations
from server.reports.forest import forest
from server.reports.statistics import GroupRow, confidence_of, group_rows


@dataclass(frozen=True)
class Card:
    """One large figure with what it is."""

    figure: str
    text: str


def write_report(record: RunRecord, path: Path) -> None:
    """Write the consortium's report of `record` to `path`, whole or not at all.

    Raises:
        StorageError: when the file cannot be written.
    """
    write_whole(report_html(record), path)


def report_html(record: RunRecord) -> str:
    """The report as text; every number in it comes from `record`."""
    return render("consortium.html", Path(__file__).parent, _values(record))


def _values(record: RunRecord) -> dict[str, Any]:
    main = select.main_series(record)
    series = select.all_series(record)
    shown = [name for name in series if name in select.FEDERATED] or ([main] if main else [])
    return {
        "record": record,
        "plan": select.plan_of(record),
        "confidence": f"{confidence_of(record):.0%}",
        "held": tables.least(record),
        "main_label": select.look(main).label if main else "",
        "harms": words.harms(record),
        "subsets": [(select.look(arm.arm).label, arm.federation) for arm in select.subset_arms(record)],
        "answer": words.answer(record),
        "weak_summary": words.weak_summary(record),
        "judged": words.judged(record),
        "cards": _cards(record),
        "moment": moment(record.created),
        "weak": [words.weak_sentence(spot) for spot in words.weak_spots(record)],
        "weak_table": tables.weak(record, shown),
        "arms": tables.arms(record),
        "gaps": tables.gaps(record),
        "arm_panels": _arm_panels(record),
        "legend": [(panels.key(name), select.look(name).label) for name in series],
        "forests": [
            forest(_rows(record, name), name, confidence_of(record), crowds.crowd(record)) for name in shown
        ],
        "forest_keys": _forest_keys(main, with_alone="alone" in series),
        "threshold": tables.threshold(record, main) if main else None,
        "other_thresholds": [tables.threshold(record, name) for name in series if name != main],
        "calibrations": [_calibration(record, name) for name in shown],
        "curves": [_curves(record, arm) for arm in select.federated_arms(record)],
        "epsilons": _epsilons(record),
        "aggregations": aggregations(record),
        "epsilon": two(words.epsilon_spent(record)),
        "participation": tables.participation(record),
        "refused_replies": tables.refused_replies(record),
        "intake": tables.intake(record),
        "codes": tables.refusal_codes(record),
        "bias": bias.chapter(record),
        "only": _simulation_only(record),
    }


def _cards(record: RunRecord) -> list[Card]:
    main = select.main_series(record)
    number, _, noun = words.trained_words(record).rpartition(" ")
    cards = [Card(number, f"{noun} trained")]
    if record.external:
        cards.append(Card(str(len(record.external)), "hospitals only tested"))
    if main:
        found = words.mean_auroc(record, main)
        if found:
            interval = estimate(found[0]).partition(" ")[2]
            cards.append(
                Card(two(found[0].value), f"mean AUROC, {select.look(main).label.lower()} {interval}")
            )
        cards.append(Card(f"{_test_patients(record, main):,}", "test patients in released cells"))
    spent = words.epsilon_spent(record)
    if spent is not None:
        cards.append(Card(two(spent), "\u03b5 spent at the hospital that spent most"))
    return cards


def _test_patients(record: RunRecord, series: str) -> int:
    known = [select.patients(select.group_of(m)) for m in select.all_series(record)[series].values()]
    return sum(n for n in known if n is not None)


def _arm_panels(record: RunRecord) -> Figure:
    series = select.all_series(record)
    main = select.main_series(record)
    rows: dict[str, dict[str, Any]] = {"Mean over hospitals": {}}
    for name in series:
        found = words.mean_auroc(record, name)
        rows["Mean over hospitals"][name] = found[0] if found else None
    of = crowds.crowd(record)
    for site in filter(of.has, select.sites(record)):
        groups = {name: select.group_of(by_site.get(site)) for name, by_site in series.items()}
        rows[site] = {name: group.auroc if group else None for name, group in groups.items()}
    rows = {title: values for title, values in rows.items() if any(values.values())}
    lows = [e.low for values in rows.values() for e in values.values() if e is not None]
    low = min(0.5, int(min(lows, default=0.5) * 10) / 10)
    drawn = [panels.arms_panel(title, values, low) for title, values in rows.items()]
    return Figure(
        "AUROC of every model, hospital by hospital",
        _grid(drawn),
        patients=f"{_test_patients(record, main):,} test patients in released cells." if main else "",
        note=f"Points with their intervals; patients per hospital are in the table below. {of.words}".strip(),
        csv=tables.arms(record).csv,
    )


def _grid(drawn: list[Markup]) -> Markup:
    return Markup('<div class="grid">') + Markup("").join(drawn) + Markup("</div>")


def _forest_keys(main: str | None, *, with_alone: bool) -> list[tuple[Markup, str]]:
    names = ([main] if main else []) + (["alone"] if with_alone and main != "alone" else [])
    keys = [(panels.key(name), select.look(name).label) for name in names]
    return [*keys, (panels.band_key(), "What chance alone would give")]


def _rows(record: RunRecord, series: str) -> list[GroupRow]:
    """The lines of a forest; of very many hospitals those with a figure."""
    return crowds.spoken(group_rows(record, series), lambda row: row.auroc is not None)


def _calibration(record: RunRecord, series: str) -> Figure:
    by_site = select.all_series(record)[series]
    found = [(site, select.group_of(by_site.get(site))) for site in select.sites(record)]
    groups = crowds.spoken(found, lambda one: bool(one[1] and one[1].calibration))
    of = crowds.crowd(record)
    shown = [(site, g) for site, g in groups if of.has(site)]
    drawn = [panels.calibration(site, g.calibration, g.ece) for site, g in shown if g is not None]
    held = tables.least(record)
    numbers = [(site, b.mean_score, b.observed, b.patients) for site, g in groups if g for b in g.calibration]
    errors = ", ".join(f"{site} {two(g.ece)}" for site, g in shown if g is not None and g.ece is not None)
    total = sum(b.patients for _, g in groups if g for b in g.calibration)
    return Figure(
        f"Calibration: {select.look(series).label}",
        _grid(drawn),
        patients=f"{total:,} patients in released bins. Expected calibration error: {errors or 'not released'}.",
        note=f"On the dashed line a score means what it says. Bins below {held} patients are absent. "
        f"Small hospitals show an error above zero even for a perfect model. {of.words}".strip(),
        csv=csv_uri(("hospital", "mean_score", "observed", "patients"), numbers),
    )


def _curves(record: RunRecord, arm: ArmRecord) -> Figure:
    rounds = arm.federation.rounds if arm.federation else ()
    names = [site for site in select.sites(record) if any(site in r.sites for r in rounds)]
    loss = {s: [(r.round - 1, r.sites[s].loss if s in r.sites else None) for r in rounds] for s in names}
    auroc = {s: [(r.round - 1, r.sites[s].auroc if s in r.sites else None) for r in rounds] for s in names}
    drawn = [
        panels.curves(loss, panels.Axes("Validation loss", "rounds completed")),
        panels.curves(auroc, panels.Axes("Validation AUROC", "rounds completed", high=1.0)),
    ]
    numbers = [
        (site, r.round - 1, r.sites[site].loss, r.sites[site].auroc)
        for r in rounds
        for site in names
        if site in r.sites
    ]
    return Figure(
        f"Learning: {select.look(arm.arm).label}",
        _grid(drawn),
        patients="Validation patients; their number and intervals are not released, so read trends only.",
        note="Each hospital's validation patients under the shared model. Gaps: held back, or no reply.",
        csv=csv_uri(("hospital", "rounds_completed", "loss", "auroc"), numbers),
    )


def _epsilons(record: RunRecord) -> list[Figure]:
    plan = select.plan_of(record)
    budget = plan.privacy.epsilon if plan and plan.private else None
    figures = []
    for arm in select.federated_arms(record):
        rounds = arm.federation.rounds if arm.federation else ()
        names = [s for s in select.sites(record) if any(s in r.sites and r.sites[s].epsilon for r in rounds)]
        if not names:
            continue
        spent = {s: [(r.round, r.sites[s].epsilon if s in r.sites else None) for r in rounds] for s in names}
        axes = panels.Axes("\u03b5 spent by the worst patient", "round", low=0.0, reference=budget)
        numbers = [(site, r, e) for site, curve in spent.items() for r, e in curve]
        figures.append(
            Figure(
                f"Privacy spent: {select.look(arm.arm).label}",
                panels.curves(_merged(spent), axes, (620.0, 260.0)),
                panels.curves(_merged(spent), axes, (372.0, 220.0)),
                patients="Training patients, exactly accounted: no interval.",
                note="Per hospital, over rounds. Hospitals with the same spend share one line.",
                csv=csv_uri(("hospital", "round", "epsilon"), numbers),
            )
        )
    return figures


def _merged(by_site: dict[str, Any]) -> dict[str, Any]:
    same: dict[tuple[Any, ...], list[str]] = {}
    for site, curve in by_site.items():
        same.setdefault(tuple(curve), []).append(site)
    return {
        who[0] if len(who) == 1 else f"{who[0]} and {len(who) - 1} more": curve for curve, who in same.items()
    }


def _simulation_only(record: RunRecord) -> dict[str, Any] | None:
    only = record.simulation_only
    if only is None or replace(only, bias=None) == SimulationOnly():
        return None
    named = {spot.row.name for spot in words.weak_spots(record)}
    planted = only.planted_weak_scanner
    where = {site for site, makers in only.scanner_of_site.items() if planted in makers.split(", ")}
    chests = tuple(
        (
            Cell(s.scanner, note="planted weak" if s.scanner == planted else ""),
            Cell(estimate(s.auroc), "weak" if s.scanner == planted else ""),
            Cell(signed(s.mean_score_shift)),
            Cell(count(s.patients)),
        )
        for s in only.same_chest
    )
    guesses = tuple(
        (Cell(g.source), Cell(estimate(g.balanced_accuracy)), Cell(two(g.chance)), Cell(f"{g.patients:,}"))
        for g in only.scanner_guess
    )
    return {
        "planted": planted,
        "named": planted in named,
        "named_sites": sorted(where & named),
        "scanners": sorted(only.scanner_of_site.items()),
        "same_chest": Table(
            "The same virtual patients on every scanner",
            ("Scanner", "AUROC", "Mean score shift", "Patients"),
            chests,
            note="Same anatomy, same finding: what differs is the scanner alone.",
        ),
        "audit": tables.privacy_audit(only),
        "audit_pictures": only.audit_pictures,
        "guesses": Table(
            "How well the scanner can be guessed",
            ("From", "Balanced accuracy", "Chance", "Patients"),
            guesses,
            note="Features that give the scanner away can be used as a shortcut to the answer.",
        ),
    }
