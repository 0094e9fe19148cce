"""The run in one table for the terminal."""

from __future__ import annotations

from typing import Final

from rich.table import Table

from common.messages import Estimate, SiteMetrics
from server.records import ArmRecord, RunRecord
from server.reports.tables import least

_NOTHING: Final = "–"
_FEW: Final = 40
"""Hospitals up to which each has a line, also where it shows nothing."""


def figure(estimate: Estimate | None) -> str:
    """An estimate as `0.912 [0.870, 0.941]`; a dash where it was suppressed or has no meaning."""
    if estimate is None:
        return _NOTHING
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def auroc(metrics: SiteMetrics | None, model: str | None = None) -> Estimate | None:
    """The AUROC of all test patients of one site under one of its models; the first one by default."""
    for candidate in metrics.models if metrics else ():
        if model in (None, candidate.model):
            return next((g.auroc for g in candidate.groups if g.group == "all"), None)
    return None


def columns_of(arms: dict[str, ArmRecord]) -> list[tuple[str, str, str | None]]:
    """The columns worth showing: (heading, arm, model), in the order of the arms."""
    columns: list[tuple[str, str, str | None]] = []
    for name, arm in arms.items():
        columns.append((name, name, None))
        if name == "federated" and any(_has(m, "personalised") for m in arm.sites.values()):
            columns.append(("federated, fine-tuned", name, "personalised"))
    return columns


def summary_table(record: RunRecord) -> Table:
    """AUROC with its interval per hospital and arm, and what privacy was spent."""
    subset = any(arm.federation and arm.federation.subset for arm in record.arms.values())
    title = f"{record.question}  AUROC [95% interval] on each hospital's own test patients"
    table = Table(title=title + ("  SUBSET of the hospitals" if subset else ""), title_justify="left")
    table.add_column("hospital")
    columns = columns_of(record.arms)
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    table.add_column("ε spent", justify="right")
    silent, told, held = 0, 0, 0
    sites = sorted({name for arm in record.arms.values() for name in arm.sites})
    for site in sites:
        cells = [figure(auroc(record.arms[arm].sites.get(site), model)) for _, arm, model in columns]
        told += sum(cell != _NOTHING for cell in cells)
        held += cells.count(_NOTHING)
        row = (*cells, _epsilon(record, site))
        if len(sites) > _FEW and set(row) == {_NOTHING}:
            silent += 1
            continue
        table.add_row(site, *row)
    if silent:
        table.add_row(f"{silent:,} hospitals, held back", *(_NOTHING for _ in (*columns, "epsilon")))
    if held:
        table.caption, table.caption_justify = _why(record, nothing=not told), "left"
    return table


def _why(record: RunRecord, *, nothing: bool) -> str:
    """What a dash stands for, and what to do where there is nothing else."""
    words = f"{_NOTHING} no figure: fewer than {least(record)} test patients with the finding, or without it, are not told of."
    more = " Ask for more patients for each hospital, or a larger plan.data.test_fraction, to see any."
    return words + (more if nothing else "")


def _epsilon(record: RunRecord, site: str) -> str:
    arm = record.arms.get("federated-dp")
    metrics = arm.sites.get(site) if arm else None
    return _NOTHING if metrics is None or metrics.epsilon is None else f"{metrics.epsilon:.2f}"


def _has(metrics: SiteMetrics, model: str) -> bool:
    return any(candidate.model == model for candidate in metrics.models)
