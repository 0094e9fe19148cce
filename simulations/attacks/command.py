"""`consilium-sim audit`: bars while it runs, a table when it is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.table import Table

from common.cli import grid
from simulations.attacks.audit import Setting, run_audit
from simulations.attacks.chapter import add_chapter, run_in
from simulations.attacks.page import figure
from simulations.attacks.records import AuditRecord
from simulations.attacks.target import Target
from simulations.board import board


def audit(
    minutes: float, out: Path, *, short: bool, data: Path | None, seed: int, run: Path | None = None
) -> tuple[AuditRecord, Table]:
    """Run the audit and show how far it is; the record, and its table.

    Args:
        minutes: no part begins after so long.
        out: receives the record and the page.
        short: the small form.
        data: folder of real pictures, or None.
        seed: of everything but privacy noise.
        run: folder of a simulated run; its report gets a chapter, and record and page go there instead of `out`.

    Raises:
        ConsiliumError: what ended it.
    """
    if run is not None:
        run_in(run)  # before minutes of work, not after
    setting = replace(Setting.brief(seed) if short else Setting(seed=seed), minutes=minutes, data=data)
    with board() as bars:
        record, shown = run_audit(
            Target(), setting, run or out, lambda _name, done, parts: bars.tick("audit", done, parts)
        )
    if run is not None:
        add_chapter(record, shown, run)
    return record, checks_table(record)


def checks_table(record: AuditRecord) -> Table:
    """One row a claim."""
    rows = [
        (
            check.name,
            "holds" if check.passed else "FAILS",
            figure(check.measured),
            f"{figure(check.low)} to {figure(check.high)}",
            check.note,
        )
        for check in record.checks
    ]
    rows += [(name, "NOT RUN", "–", "–", "the time was up") for name in record.left_out]
    verdict = "every claim held" if record.passed else "FAILED"
    return grid(f"Privacy audit: {verdict}", ("check", "verdict", "measured", "allowed", "note"), rows)
