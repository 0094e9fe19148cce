"""The audit's chapter in the report of a run: its figures as the run's own typed record, its page beside the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from common.errors import InputError
from server.records import AuditFigure, RunRecord, SimulationOnly, read_record, write_record
from server.reports.consortium import write_report
from simulations.attacks.page import Shown, rows_of_pictures
from simulations.attacks.records import AuditRecord, Reconstructions


def run_in(folder: Path) -> RunRecord:
    """The record of the simulated run in a folder.

    Raises:
        InputError: when there is none, or the run was a real one.
    """
    try:
        record = read_record(folder / "metrics.json")
    except (OSError, ValidationError):
        raise InputError(
            folder.name, "it holds no run with a metrics.json", "Give the folder of a finished run"
        ) from None
    if not record.simulated:
        raise InputError(folder.name, "its run was not simulated", "Audit a simulated run")
    return record


def add_chapter(audit: AuditRecord, shown: tuple[Shown, ...], folder: Path) -> None:
    """Put the audit's figures and pictures into the run's `metrics.json` and write its `report.html` anew.

    Pictures of real images (`--data`) stay out: the consortium's report shows no patient.

    Raises:
        InputError: when the folder holds no simulated run.
        StorageError: when it cannot be written to.
    """
    record = run_in(folder)
    pictures = rows_of_pictures(shown) if audit.images == "phantoms" else ()
    only = record.simulation_only or SimulationOnly()
    only = replace(only, audit=tuple(figures(audit)), audit_pictures=pictures)
    with_audit = replace(record, simulation_only=only)
    write_record(with_audit, folder / "metrics.json")
    write_report(with_audit, folder / "report.html")


def figures(audit: AuditRecord) -> Iterator[AuditFigure]:
    """What of an audit is worth a line in another report."""
    held = sum(check.passed for check in audit.checks)
    yield AuditFigure(
        "Direct tests", "as claimed", f"{held} of {len(audit.checks)} claims held", audit.passed
    )
    for attack, arms in (("Imprint", audit.imprint), ("Inversion", audit.inversion)):
        for arm in arms:
            yield _pictures(attack, arm)
    for sum_ in audit.sums:
        what = f"{sum_.attack.capitalize()}, sum of {sum_.sites} hospitals"
        yield AuditFigure(what, "secure aggregation alone", f"{sum_.alone} of {sum_.images} images", None)
        yield AuditFigure(what, "with DP", f"{sum_.with_dp} of {sum_.images} images", sum_.with_dp == 0)
    for row in audit.canaries:
        good = None if row.claimed is None else row.lower_bound <= row.claimed
        yield AuditFigure("Canaries", row.arm, f"ε at least {row.lower_bound:.2f}", good)
    for one in audit.membership:
        found, allowed = one.advantage, one.allowed
        result = f"advantage {found.value:.2f} ({found.low:.2f}–{found.high:.2f}), AUC {one.auc.value:.2f}"
        if allowed is not None:
            result += f"; ε allows {allowed:.2f}"
        good = None if allowed is None else found.low <= allowed
        yield AuditFigure(f"Membership, {one.attack.replace('-', ' ')}", one.arm, result, good)


def _pictures(attack: str, arm: Reconstructions) -> AuditFigure:
    protected = arm.sigma is not None and arm.sigma >= 0.5
    good = arm.recovered == 0 if protected else None
    return AuditFigure(attack, arm.arm, f"{arm.recovered} of {arm.images} images", good)
