"""What a researcher types to see whether it holds: attacks, faults, clipping, text in pixels, a federation of real processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from common.cli import JsonFlag, progress, say, show
from simulations.commands.options import Out, Seed


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
    from simulations.text_recall import as_markdown, table
    from simulations.text_recall import text_recall as measure

    with progress("read the images") as done:
        recall = measure(cases, seed, done, images, markers)
    if out is not None:
        out.write_text(as_markdown(recall), encoding="utf-8")
    show(recall, as_json, lambda: table(recall))


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


CHECKS: Final[tuple[tuple[str, Callable[..., Any], str], ...]] = (
    ("export", export, "consilium-sim export virtual --hospitals 2 --patients 60 --seed 1"),
    ("text-recall", text_recall, "consilium-sim text-recall --cases 600 --out recall.md"),
    ("audit", audit, "consilium-sim audit --minutes 10 --out runs/audit"),
    ("clipping", clipping, "consilium-sim clipping --clip 0.01 --clip 1 --repeats 3"),
    ("faults", faults, "consilium-sim faults --kept faults.json --write docs/faults.md"),
    ("federation", federation, "consilium-sim federation --hospitals 3"),
)
"""Name, command, example."""
