"""`consilium-sim null-rate`: bars while it runs, two tables when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, say, show


def null_rate(
    simulations: Annotated[
        int, typer.Option(min=0, help="Cohorts in which no group is served worse, over all cases.")
    ] = 10_000,
    power: Annotated[int, typer.Option(min=0, help="Cohorts of each size and planted gap.")] = 200,
    costly: Annotated[
        int, typer.Option(min=0, help="Cohorts for each figure that is dear to permute, such as the AUPRC.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of cohorts, permutations and coins.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core when not given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that keeps every batch.")] = Path("runs/null-rate"),
    write: Annotated[
        Path | None, typer.Option(help="Put both tables into this file, between its marks.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """How often the statistics of groups raise a false alarm, and how surely they find a planted gap.

    Goes on where it stopped. Ends with status 1 when false alarms are not as often as stated.
    """
    from simulations.null_rate.sweep import Sweep, sweep
    from simulations.null_rate.told import costly_table, null_table, power_table, promised, put

    result = sweep(Sweep(simulations, power, seed, costly), out, workers)
    if write is not None:
        put(write, result)
    show(result, as_json, lambda: null_table(result))
    if result.power and not as_json:
        show(result, as_json, lambda: power_table(result))
    if result.costly and not as_json:
        show(result, as_json, lambda: costly_table(result))
    if simulations and not promised(result):
        say("False alarms are not as often as stated.")
        raise typer.Exit(1)
