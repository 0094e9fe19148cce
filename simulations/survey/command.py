"""`consilium-sim survey`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, say, show


def survey(
    scenario: Annotated[Path, typer.Argument(help="The scenario, a TOML file.")],
    summed: Annotated[
        list[str] | None,
        typer.Option(
            help="A hospital that is in the masked sum only; repeatable, '*' for all. Three at least."
        ),
    ] = None,
    epsilon: Annotated[float, typer.Option(min=0, help="Of the sum; needs --summed '*'.")] = 0.0,
    data: Annotated[
        Path | None, typer.Option(envvar="CONSILIUM_DATA", help="Folder of real images, where it needs one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the patients.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that receives one sub-folder per run.")] = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Count the patients of a scenario's hospitals and say what will trouble a model, before any training."""
    from server.analytics.page import PAGE
    from server.analytics.trouble import predicted
    from server.commands.survey import table
    from simulations.scenario import load_scenario
    from simulations.survey.hospitals import Choice, run_survey

    loaded = load_scenario(scenario, with_data=data is not None, seed=seed)
    choice = Choice(tuple(summed or ()), epsilon)
    record, folder = run_survey(loaded, out, data, choice, lambda at: say(f"The page goes to {at}"))
    result = {"record": record, "troubles": predicted(record), "page": folder / PAGE}
    show(result, as_json, lambda: table(record))
    say(f"Open {folder / PAGE} in a browser.")
