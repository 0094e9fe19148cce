"""`consilium-sim compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, say, show


def compare(
    scenario: Annotated[Path, typer.Option(help="The scenario, a TOML file.")],
    methods: Annotated[
        str, typer.Option(help="Names with commas, or `all`; fedavg is always among them (docs/methods.md).")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="How many: seeds 1, 2, ...")] = 5,
    more: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A TOML file of more ways to train: [<name>.<section>]."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(envvar="CONSILIUM_DATA", help="Folder of real images.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of training.")] = None,
    patients: Annotated[
        int | None, typer.Option(min=60, help="Of all hospitals together, where the scenario names none.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that receives one sub-folder.")] = Path("runs"),
    write: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Also put the tables between the marks of this page."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train the same hospitals by several methods over seeds: mean and worst AUROC, change from FedAvg, cost.

    The same command goes on where it stopped; more methods or seeds find what is there.
    """
    from simulations.compare.page import ended, summary
    from simulations.compare.sites_told import put
    from simulations.compare.sweep import Asked
    from simulations.compare.sweep import compare as run
    from simulations.compare.ways import ways
    from simulations.scenario import load_scenario

    chosen = ways(methods, more)
    loaded = tuple(
        load_scenario(scenario, rounds=rounds, with_data=data is not None, seed=seed, patients=patients)
        for seed in range(1, seeds + 1)
    )
    asked = Asked(loaded, tuple(chosen), out, data)
    record, folder = run(asked, lambda place: say(f"Records and the page go to {place}"))
    if write is not None:
        put(write, record)
    show(record, as_json, lambda: summary(record))
    for line in ended(record):
        say(line)
    say(f"Open {folder / 'compare.html'} in a browser.")
    if any(row.failed for row in record.rows):
        raise typer.Exit(1)
