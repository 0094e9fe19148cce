"""`consilium-sim table`: a bar while it runs, a table of accuracies when it is done."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli import JsonFlag, grid, progress, show

if TYPE_CHECKING:
    from rich.table import Table

    from simulations.tables.accuracy import Hits
    from simulations.tables.run import Outcome


def table(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the table; that of the study file when not given.")
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            min=0, help="Above 1: cross-validate within the training rows; test rows are not looked at."
        ),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New folder that keeps every run; none is kept when not given.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hospitals whose patients are rows of a table: alone, federated, pooled and private, by accuracy."""
    from simulations.tables.run import run_study
    from simulations.tables.study import load_study

    read = load_study(study)
    file = (data or study.parent) / read.table.file
    with tempfile.TemporaryDirectory() as scratch, progress("trainings") as told:
        outcome = run_study(read, file, out or Path(scratch), folds, told)
    show(_plain(outcome), as_json, lambda: _drawn(outcome))


def _plain(outcome: Outcome) -> dict[str, object]:
    return {
        "study": outcome.study,
        "folds": outcome.folds,
        "arms": {
            arm.arm: {
                "sites": {
                    site: {"accuracy": one.share, "patients": one.of} for site, one in arm.sites.items()
                },
                "mean": arm.mean,
                "patients": arm.patients.share,
            }
            for arm in outcome.arms
        },
    }


def _drawn(outcome: Outcome) -> Table:
    where = f"{outcome.folds} folds of the training rows" if outcome.folds else "test rows"
    names = [*outcome.arms[0].sites]
    rows = [[site, *(_told(arm.sites[site]) for arm in outcome.arms)] for site in names]
    rows.append(["mean of hospitals", *(f"{arm.mean:.3f}" for arm in outcome.arms)])
    rows.append(["all patients", *(_told(arm.patients) for arm in outcome.arms)])
    return grid(f"{outcome.study}: accuracy on {where}", ("hospital", *(a.arm for a in outcome.arms)), rows)


def _told(hits: Hits) -> str:
    interval = hits.interval
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}] of {hits.of}"
