"""Training on this hospital's own patients, without a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, progress, show


def train(
    plan: Annotated[Path, typer.Argument(help="The study plan, a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for model, metrics and report.")] = Path("runs/alone"),
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Train alone on this hospital's data: the same policy, ledger and training as in a federation."""
    from client.local import train_alone
    from client.site import load_site
    from common.plan import load_plan

    loaded, study = load_site(site), load_plan(plan)
    with progress("Training") as report:
        result = train_alone(loaded, study, out, progress=report)

    def table() -> Table:
        auroc = result.auroc
        rows: list[tuple[str, object]] = [
            ("run", result.run),
            ("rounds", result.rounds),
            ("model", result.model),
        ]
        rows += [("metrics", result.metrics), ("report", result.report)]
        interval = auroc and f"{auroc.value:.3f} (95% interval {auroc.low:.3f} to {auroc.high:.3f})"
        rows += [("AUROC, test patients", interval)]
        if study.private:
            spent = (
                None
                if result.epsilon is None
                else f"{result.epsilon:.2f}, of {study.privacy.epsilon:g} allowed"
            )
            rows += [("ε of this run", spent)]
        return grid(f"{study.study.name} at {loaded.name}", ("what", "value"), rows)

    show(result, as_json, table)
