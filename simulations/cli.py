"""`consilium-sim`: what a researcher types."""

from __future__ import annotations

import os
import signal
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from client.commands.bench import dp as bench_dp
from common.cli import JsonFlag, example, make_app, progress, say, show
from simulations.benchmarks import scanner_commands
from simulations.benchmarks.commands import DEPLOYED
from simulations.benchmarks.simulation_command import simulation
from simulations.compare.command import compare
from simulations.null_rate.command import null_rate
from simulations.probes.command import probe_rate, report
from simulations.survey.command import survey
from simulations.tables.command import table as table_study

app = make_app(
    "Virtual federations: many hospitals on one machine, with the same client code that real ones run. "
    "Start with `demo`."
)

bench = typer.Typer(help="Speed and memory beside a peer or a limit, in one run.", no_args_is_help=True)
app.add_typer(bench, name="bench")
bench.command("dp", epilog=example("consilium-sim bench dp --network resnet18"))(bench_dp)

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

for _name, _command, _words in DEPLOYED:
    bench.command(_name, epilog=example(f"consilium-sim bench {_name} {_words}"))(_command)

bench.command("simulation", epilog=example("consilium-sim bench simulation --turns 3"))(simulation)
bench.command("scanners", epilog=example("consilium-sim bench scanners --images 40"))(scanner_commands.speed)
bench.command("vendors", epilog=example("consilium-sim bench vendors --patients 100"))(
    scanner_commands.vendors
)
app.command("scanners", epilog=example("consilium-sim scanners --out sheet.png --seed 1"))(
    scanner_commands.sheet
)

Out = Annotated[Path, typer.Option(help="Folder that receives one sub-folder per run.")]
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
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything but privacy noise.")]


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
    """Run one scenario: every arm on the same hospitals, one set of records, one report.

    A scenario with [frontier] runs every setting of it once; the same command goes on where it stopped.
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
    from simulations.sweep import Asked, line, table
    from simulations.sweep import sweep as carry_out
    from simulations.sweep_grid import grid_of

    asked = Asked(scenario, grid_of(settings), out, cache, data, ray)
    swept, _ = carry_out(asked, lambda point, done, of: say(line(point, done, of)), _begun)
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


@bench.command("intake", epilog=example("consilium-sim bench intake --files 200"))
def bench_intake(
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
def bench_proof(
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
def bench_robust(
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
def bench_secagg(
    sites: Annotated[int, typer.Option(min=5, help="Hospitals; one of them vanishes midway.")] = 8,
    values: Annotated[int, typer.Option(min=1, help="Values of one update.")] = 11_000_000,
    bits: Annotated[list[int] | None, typer.Option(help="16, 24 or 32 of one value; repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Seconds and bytes of a masked round beside a visible one, messages and recovery included."""
    from simulations.benchmarks.secagg import costs, table

    found = costs(sites, values, bits or [16, 24, 32])
    show(found, as_json, lambda: table(found))


@app.command(epilog=example("consilium-sim export virtual --hospitals 2 --patients 60 --seed 1"))
def export(
    folder: Annotated[Path, typer.Argument(help="Empty or new; receives one folder per hospital.")],
    hospitals: Annotated[int, typer.Option(min=1, help="Number of virtual hospitals.")] = 2,
    patients: Annotated[int, typer.Option(min=8, help="Patients of all hospitals together.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same bytes.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Write what virtual hospitals' archives would export: identified DICOM and labels.csv, to try intake on.

    Then, for one of them: consilium-site init, ingest, status, refused.
    """
    from simulations.export import export as write
    from simulations.export import table

    exported = write(folder, hospitals, patients, seed)
    show(exported, as_json, lambda: table(exported))


@app.command("text-recall", epilog=example("consilium-sim text-recall --cases 600 --out recall.md"))
def text_recall(
    cases: Annotated[int, typer.Option(min=20, help="Images with invented text.")] = 300,
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed makes the same images; 1 made those of training.")
    ] = 2,
    images: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Real images without text, counted apart."),
    ] = None,
    markers: Annotated[
        int | None, typer.Option(min=1, help="Images with a marker of side; a third of the cases by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the tables here, as Markdown.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Burn invented text into virtual images and see how much of it a hospital's own code finds."""
    from common.cli import progress
    from simulations.text_recall import as_markdown, table
    from simulations.text_recall import text_recall as measure

    with progress("read the images") as done:
        recall = measure(cases, seed, done, images, markers)
    if out is not None:
        out.write_text(as_markdown(recall), encoding="utf-8")
    show(recall, as_json, lambda: table(recall))


@app.command(epilog=example("consilium-sim audit --minutes 10 --out runs/audit"))
def audit(
    minutes: Annotated[float, typer.Option(min=0.1, help="No part begins after so long.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder for audit.html, audit.json and pictures.")] = Path(
        "runs/audit"
    ),
    short: Annotated[
        bool, typer.Option("--short", help="The claims and small attacks only, as in CI.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of real PNG or JPEG pictures to attack."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--run", exists=True, file_okay=False, help="A simulated run; its report gets a chapter."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything but privacy noise.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Attack the code that hospitals run, with and without protection, and test its noise, clip and ledger.

    Ends with status 1 when a claim does not hold.
    """
    from simulations.attacks.command import audit as run_audit

    record, table = run_audit(minutes, out, short=short, data=data, seed=seed, run=into)
    show(record, as_json, lambda: table)
    say(f"Open {(into or out) / 'audit.html'} in a browser.")
    if not record.passed:
        raise typer.Exit(1)


@app.command(epilog=example("consilium-sim clipping --clip 0.01 --clip 1 --repeats 3"))
def clipping(
    scenario: Annotated[
        Path | None, typer.Argument(help="A scenario with a private arm; the shipped one when left out.")
    ] = None,
    clip: Annotated[list[float] | None, typer.Option(min=1e-6, help="Where C begins; repeatable.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Trainings of each setting; noise is fresh.")] = 3,
    data: Annotated[Path | None, typer.Option(envvar="CONSILIUM_DATA", help="Folder of real images.")] = None,
    seed: Seed = None,
    out: Out = Path("runs/clipping"),
    as_json: JsonFlag = False,
) -> None:
    """Flat against adaptive clipping at the same epsilon, from good and bad starts of C: a table and a figure."""
    from simulations.clipping import compare_clipping, table
    from simulations.scenario import HERE, load_scenario

    loaded = load_scenario(scenario or HERE / "clipping.toml", with_data=data is not None, seed=seed)
    record = compare_clipping(loaded, clip or [0.01, 0.1, 1.0, 10.0], repeats, out, data)
    show(record, as_json, lambda: table(record))
    say(f"The figure is {out / 'clipping.png'}.")


@app.command(epilog=example("consilium-sim faults --kept faults.json --write docs/faults.md"))
def faults(
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="Of this name, or all like it, as 'tls-*'; may be given again. All when not given."
        ),
    ] = None,
    kept: Annotated[
        Path | None,
        typer.Option(help="Holds what was measured; a case that is well in it is not measured again."),
    ] = None,
    short: Annotated[bool, typer.Option(help="A few faults only, within two minutes.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Put the tables into this file, between their marks.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Kill every process of a federation at every moment of a round, cut its network, let hospitals hang and lie."""
    from simulations.faults.report import measure, names, put, tables

    # A federation of real processes is never left behind, whoever ends this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    measured = measure(say, names(case or [], short=short), kept)
    if write is not None:
        put(write, measured)
    show(measured, as_json, lambda: "\n\n".join(tables(measured).values()))
    if measured.unwell:
        raise typer.Exit(1)


@app.command(epilog=example("consilium-sim federation --hospitals 3"))
def federation(
    folder: Annotated[
        Path | None, typer.Option(help="A new folder for everything; a temporary one when not given.")
    ] = None,
    hospitals: Annotated[int, typer.Option(min=2, help="Number of virtual hospitals.")] = 3,
    patients: Annotated[int, typer.Option(min=120, help="Patients of all hospitals together.")] = 180,
    as_json: JsonFlag = False,
) -> None:
    """A consortium and hospitals as real processes over TLS: enrol, approve, train, kill a process, recover."""
    from simulations.federation import default_folder, run
    from simulations.federation_told import table

    outcome = run((folder or default_folder()).resolve(), say, hospitals, patients)
    show(outcome, as_json, lambda: table(outcome))


def _begun(folder: Path) -> None:
    say(f"Records and reports go to {folder}")


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
