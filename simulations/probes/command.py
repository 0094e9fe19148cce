"""`consilium-sim probe-rate`: how often the judged probes raise an alarm. `consilium-sim report`: runs beside one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, progress, say, show


def probe_rate(
    seeds: Annotated[int, typer.Option(min=1, help="Trials of each case in which nothing is wrong.")] = 400,
    planted: Annotated[int, typer.Option(min=0, help="Trials of each planted shortcut.")] = 100,
    bodies: Annotated[int, typer.Option(min=800, help="Virtual patients to deal from.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the virtual patients.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder that keeps the patients and every trial.")] = Path(
        "runs/probe-rate"
    ),
    write: Annotated[
        Path | None, typer.Option(help="Put the table into this file, between its marks.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """How often the probes for shortcuts raise an alarm: where nothing is wrong, and where a shortcut was planted.

    Goes on where it stopped. Ends with status 1 when false alarms are more frequent than stated or a shortcut goes unseen.
    """
    from simulations.probes.bank import kept
    from simulations.probes.told import put, rate_table
    from simulations.probes.trials import EXPECTED, NULL, promised, rates, trials

    with progress("virtual patients") as report:
        bank = kept(out / f"bank-{bodies}-{seed}.npz", bodies, seed, report)
    cases = [*((case, seeds) for case in NULL), *((case, planted) for case in EXPECTED if planted)]
    with progress("trials") as report:
        rows = rates(trials(bank, cases, out / f"trials-{bodies}-{seed}.jsonl", report))
    if write is not None:
        put(write, rows)
    show(rows, as_json, lambda: rate_table(rows))
    if not promised(rows):
        say("Alarms are not as often as stated.")
        raise typer.Exit(1)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(exists=True, file_okay=False, help="Folders of runs; the first is compared with."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page to write; report.html of a single run, else comparison.html beside the first."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs on one page: worst-served, mean and best-served hospital, and the shortcuts found in each.

    Of one run its report is written anew from its records.
    """
    from common.cli import grid
    from server.reports.compare import plain_table, record_of, records_of, write_comparison
    from server.reports.consortium import write_report

    if len(runs) == 1:
        page = out or runs[0] / "report.html"
        write_report(record_of(runs[0]), page)
        show({"page": str(page)}, as_json, lambda: f"Open {page} in a browser.")
        return
    page = out or runs[0].parent / "comparison.html"
    found = write_comparison(records_of(runs), page)
    header, rows = plain_table(found)
    told = {
        "page": str(page),
        "warnings": found.warnings,
        "runs": [dict(zip(header, row, strict=True)) for row in rows],
    }
    show(told, as_json, lambda: grid(found.table.caption, header, rows))
    for warning in () if as_json else found.warnings:
        say(f"With care: {warning}")
    say(f"Open {page} in a browser.")
