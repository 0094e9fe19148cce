"""`consilium-sim bench`: speed and memory, each beside a peer or a limit in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from client.commands.bench import dp
from common.cli import JsonFlag, example, progress, show
from simulations.benchmarks import scanner_commands
from simulations.benchmarks.commands import DEPLOYED
from simulations.benchmarks.simulation_command import simulation
from simulations.commands.options import Seed

bench = typer.Typer(help="Speed and memory beside a peer or a limit, in one run.", no_args_is_help=True)
bench.command("dp", epilog=example("consilium-sim bench dp --network resnet18"))(dp)

for _name, _command, _words in DEPLOYED:
    bench.command(_name, epilog=example(f"consilium-sim bench {_name} {_words}"))(_command)

bench.command("simulation", epilog=example("consilium-sim bench simulation --turns 3"))(simulation)
bench.command("scanners", epilog=example("consilium-sim bench scanners --images 40"))(scanner_commands.speed)
bench.command("vendors", epilog=example("consilium-sim bench vendors --patients 100"))(
    scanner_commands.vendors
)


@bench.command("intake", epilog=example("consilium-sim bench intake --files 200"))
def intake(
    files: Annotated[int, typer.Option(min=20, help="CT slices of the long run.")] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of all contenders.")] = 5,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Time the search for text too.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Milliseconds per CT slice for the whole of intake, beside dicognito and dicom-anonymizer."""
    from simulations.benchmarks.intake import intake_speed

    with progress("runs") as report:
        speed = intake_speed(files, repeats, text=text, progress=report)
    show(speed, as_json, speed.table)


@bench.command("proof", epilog=example("consilium-sim bench proof --files 3000 --seed 1"))
def proof(
    files: Annotated[int, typer.Option(min=50, help="Clean files, of all kinds of names together.")] = 2000,
    seed: Seed = 1,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Read the pixels too.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """How many clean files the second scan holds back: names that are words, makers and models, numbers."""
    from simulations.benchmarks.proof import false_quarantine

    with progress("files") as report:
        found = false_quarantine(files, seed or 0, text=text, progress=report)
    show(found, as_json, found.table)


@bench.command("robust", epilog=example("consilium-sim bench robust --patients 2100 --rounds 15"))
def robust(
    patients: Annotated[int, typer.Option(min=140, help="Of seven virtual hospitals together.")] = 2100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every run.")] = 15,
    seed: Seed = 1,
    as_json: JsonFlag = False,
) -> None:
    """What each robust rule costs when nobody lies and saves when one hospital does; and what fewer bits cost."""
    from simulations.benchmarks.robust import robust_rules

    found = robust_rules(patients, rounds, seed or 0)
    show(found, as_json, found.table)


@bench.command("secagg", epilog=example("consilium-sim bench secagg --sites 8 --values 11000000"))
def secagg(
    sites: Annotated[int, typer.Option(min=5, help="Hospitals; one of them vanishes midway.")] = 8,
    values: Annotated[int, typer.Option(min=1, help="Values of one update.")] = 11_000_000,
    bits: Annotated[list[int] | None, typer.Option(help="16, 24 or 32 of one value; repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Seconds and bytes of a masked round beside a visible one, messages and recovery included."""
    from simulations.benchmarks.secagg import costs, table

    found = costs(sites, values, bits or [16, 24, 32])
    show(found, as_json, lambda: table(found))
