"""`consilium-sim`: what a researcher types."""

from __future__ import annotations

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, example, make_app, say, show
from simulations.benchmarks import scanner_commands
from simulations.commands.bench import bench
from simulations.commands.checks import CHECKS
from simulations.commands.options import Out, Seed
from simulations.compare.command import compare
from simulations.null_rate.command import null_rate
from simulations.probes.command import probe_rate, report
from simulations.survey.command import survey
from simulations.tables.command import table as table_study

app = make_app(
    "Virtual federations: many hospitals on one machine, with the same client code that real ones run. "
    "Start with `demo`."
)

Browser = Annotated[bool, typer.Option("--open/--no-open", help="Open the report where there is a browser.")]
Hospitals = Annotated[int | None, typer.Option(min=2, help="Number of virtual hospitals.")]
Patients = Annotated[int | None, typer.Option(min=60, help="Patients of all hospitals together.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds of training.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        envvar="CONSILIUM_CACHE",
        help="Folder in which virtual hospitals are kept and found again; what was interrupted goes on.",
    ),
]


@dataclass(frozen=True)
class _Made:
    """Where hospitals come from."""

    data: Path | None = None
    """Folder of real images."""
    cache: Path | None = None
    """Folder of prepared virtual hospitals."""


@app.command(epilog=example("consilium-sim demo --hospitals 6 --rounds 15 --patients 1620 --seed 1"))
def demo(
    hospitals: Hospitals = None,
    rounds: Rounds = None,
    patients: Patients = None,
    seed: Seed = None,
    out: Out = Path("runs"),
    browser: Browser = True,
    as_json: JsonFlag = False,
) -> None:
    """Virtual hospitals with different scanners train one model; ends with a table and a report."""
    from simulations.scenario import HERE

    changes = {"hospitals": hospitals, "patients": patients, "seed": seed}
    _run(HERE / "demo.toml", out, changes, rounds=rounds, browser=browser, as_json=as_json)


@app.command(
    epilog=example("consilium-sim run simulations/scenarios/cxr_pneumonia.toml --data $CONSILIUM_CXR")
)
def run(
    scenario: Annotated[Path, typer.Argument(help="The scenario, a TOML file.")],
    data: Annotated[
        Path | None, typer.Option(envvar="CONSILIUM_DATA", help="Folder of real images, where it needs one.")
    ] = None,
    seed: Seed = None,
    rounds: Rounds = None,
    out: Out = Path("runs"),
    cache: Cache = None,
    browser: Browser = False,
    as_json: JsonFlag = False,
) -> None:
    r"""Run one scenario: every arm on the same hospitals, one set of records, one report.

    A scenario with \[frontier] runs every setting of it once; the same command goes on where it stopped.
    """
    made = _Made(data, cache)
    _run(scenario, out, {"seed": seed}, rounds=rounds, made=made, browser=browser, as_json=as_json)


@app.command(
    epilog=example("consilium-sim splits simulations/scenarios/cxr_pneumonia.toml --data DIR --splits 5")
)
def splits(
    scenario: Annotated[Path, typer.Argument(help="The scenario, a TOML file.")],
    data: Annotated[Path | None, typer.Option(envvar="CONSILIUM_DATA", help="Folder of real images.")] = None,
    count: Annotated[int, typer.Option("--splits", min=2, help="Patient splits, seeds 1, 2, ...")] = 5,
    out: Out = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Repeat a scenario over several patient splits; per site, federated against alone, paired."""
    from simulations.splits import over_splits

    summary = over_splits(scenario, data, count, out)
    show(summary, as_json, summary.table)


@app.command(
    epilog=example("consilium-sim sweep simulations/scenarios/balanced.toml --set scenario.seed=1,2,3")
)
def sweep(
    scenario: Annotated[Path, typer.Argument(help="The scenario, a TOML file.")],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", help="A key of the file and its values: KEY=A,B,C; repeatable, all combinations."
        ),
    ],
    data: Annotated[Path | None, typer.Option(envvar="CONSILIUM_DATA", help="Folder of real images.")] = None,
    out: Out = Path("runs"),
    cache: Cache = None,
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster, as 'auto'; this machine's cores when left out.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Run a scenario under every combination of settings; the same command goes on where it stopped."""
    from simulations.sweep import Asked
    from simulations.sweep import sweep as carry_out
    from simulations.sweep_grid import grid_of
    from simulations.sweep_shown import Point, line, table

    def told(point: Point, done: int, of: int) -> None:
        if not (as_json or sys.stderr.isatty()):  # a terminal has the table
            say(line(point, done, of))

    asked = Asked(scenario, grid_of(settings), out, cache, data, ray, silent=as_json)
    swept, _ = carry_out(asked, told, _silent if as_json else _begun)
    show(swept, as_json, lambda: table(swept))


@app.command("weak-scanner", epilog=example("consilium-sim weak-scanner --seeds 5"))
def weak_scanner(
    seeds: Annotated[int, typer.Option(min=1, help="How many: seeds 1, 2, ...")] = 5,
    hospitals: Hospitals = None,
    rounds: Rounds = None,
    patients: Patients = None,
    out: Out = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Repeat the demo with other patients and see whether its report names the weak scanner that was planted.

    Ends with status 1 when a report does not.
    """
    from simulations.weak_scanner import weak_scanner as look

    changes = {"hospitals": hospitals, "rounds": rounds, "patients": patients}
    findings = look(range(1, seeds + 1), out, changes, _begun)
    show(findings, as_json, findings.table)
    if not findings.found_always:
        raise typer.Exit(1)


app.add_typer(bench, name="bench")
for _name, _command, _words in CHECKS:
    app.command(_name, epilog=example(_words))(_command)

app.command("table", epilog=example("consilium-sim table simulations/tables/heart_disease.toml --data DIR"))(
    table_study
)
app.command(
    "compare", epilog=example("consilium-sim compare --scenario simulations/scenarios/demo.toml --seeds 3")
)(compare)

app.command(
    "survey", epilog=example("consilium-sim survey simulations/scenarios/confounded.toml --out runs")
)(survey)
app.command("null-rate", epilog=example("consilium-sim null-rate --simulations 10000"))(null_rate)
app.command("probe-rate", epilog=example("consilium-sim probe-rate --seeds 400"))(probe_rate)
app.command("report", epilog=example("consilium-sim report runs/demo-1 runs/demo-2"))(report)

app.command("scanners", epilog=example("consilium-sim scanners --out sheet.png --seed 1"))(
    scanner_commands.sheet
)


def _begun(folder: Path) -> None:
    say(f"Records and reports go to {folder}")


def _silent(_folder: Path) -> None:
    """Nothing said."""


def _run(
    path: Path,
    out: Path,
    changes: dict[str, int | None],
    *,
    rounds: int | None,
    made: _Made = _Made(),
    browser: bool,
    as_json: bool,
) -> None:
    from simulations.experiment import run_scenario
    from simulations.scenario import load_scenario
    from simulations.table import summary_table

    scenario = load_scenario(path, rounds=rounds, with_data=made.data is not None, **changes)
    if scenario.frontier is not None:
        from simulations.frontier.page import summary
        from simulations.frontier.sweep import run_frontier

        record, folder = run_frontier(scenario, out, made.data, begun=_begun)
        show(record, as_json, lambda: summary(record))
        page = folder / "frontier.html"
    else:
        outcome = run_scenario(scenario, out, made.data, cache=made.cache, begun=_begun)
        show(outcome.record, as_json, lambda: summary_table(outcome.record))
        page = outcome.folder / "report.html"
    if browser and not as_json and _has_screen() and webbrowser.open(page.resolve().as_uri()):
        say("The report is open in your browser.")
    else:
        say(f"Open {page} in a browser.")


def _has_screen() -> bool:
    """Whether a window can open; without one, a text browser would take the terminal over."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def main() -> None:
    """Run `consilium-sim` with the arguments of this process."""
    app(prog_name="consilium-sim")


if __name__ == "__main__":
    main()
