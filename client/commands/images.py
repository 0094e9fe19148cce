"""Images in, refusals explained, a patient out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, progress, show
from common.errors import InputError


def ingest(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM, or of PNG/JPEG named in the table.")],
    labels: Annotated[
        Path | None, typer.Option(help="Label table: accession,label,source,version; optional split.")
    ] = None,
    site: SiteFolder = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take a folder in: de-identify, verify, check, index. Repeat it at will; known files cost nothing.

    A file that fails stays in quarantine with its reason; the others go on. See `refused`.
    """
    from client.intake.ingest import ingest as take_in
    from client.site import load_site

    loaded = load_site(site)
    with progress("Taking in") as report:
        result = take_in(loaded, folder, labels, workers=workers, progress=report)

    def table() -> Table:
        rows = [(key, value) for key, value in vars(result).items() if key != "refused"]
        rows += [(f"refused: {code}", count) for code, count in sorted(result.refused.items())]
        return grid(f"Ingestion at {loaded.name}", ("what", "count"), rows)

    show(result, as_json, table)


def refused(site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """List what was refused, by which rule, and what to do about it."""
    from client.intake import cli_rows
    from client.site import load_site

    loaded = load_site(site)
    rows = cli_rows(loaded)

    def table() -> Table | str:
        if not rows:
            return f"Nothing was refused at {loaded.name}."
        return grid(
            f"Refused at {loaded.name}",
            ("code", "files", "rule", "what to do"),
            ((row.code, row.count, row.rule, row.remedy) for row in rows),
        )

    show(rows, as_json, table)


def withdraw(
    pseudonym: Annotated[str, typer.Argument(help="The patient's pseudonym; '-' reads it from stdin.")],
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Remove a patient from index, store and all future training; lists the runs that used them."""
    from client.site import load_site
    from client.withdraw import withdraw as remove

    loaded = load_site(site)
    result = remove(loaded, _read(pseudonym))
    lines = [f"Withdrawn: {len(result.sop_uids)} images, {len(result.volumes)} volumes removed."]
    lines += [f"Used by run {run}; that model cannot be unlearned here." for run in result.runs]
    show(result, as_json, lambda: "\n".join(lines or ["No run used this patient."]))


def _read(pseudonym: str) -> str:
    text = typer.get_text_stream("stdin").readline() if pseudonym == "-" else pseudonym
    if not text.strip():
        raise InputError("the pseudonym", "it is empty", "Give it as an argument, or on stdin with '-'")
    return text.strip()
