"""`pacs echo` and `pacs query`: whether an archive answers, and what it has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, progress, show
from common.errors import InputError, PacsError

if TYPE_CHECKING:
    from client.pacs.echo import Echo
    from client.pacs.query import StudyFound, Summary, Wanted
    from client.site import Site

RemoteName = Annotated[str | None, typer.Option("--remote", "-r", help="Name of the archive in site.toml.")]
Modalities = Annotated[
    list[str] | None, typer.Option("--modality", "-m", help="Such as CT; repeat for more.")
]
BodyParts = Annotated[list[str] | None, typer.Option("--body-part", help="Such as CHEST; repeat for more.")]
First = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First study date, YYYY-MM-DD.")
]
Last = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last study date, YYYY-MM-DD.")
]
Accessions = Annotated[
    Path | None,
    typer.Option(help="Only these: a file with one accession number a line, or a table with that column."),
]
Studies = Annotated[list[str] | None, typer.Option("--study", help="Study instance UID; repeat for more.")]


def wanted(
    modality: Sequence[str] | None,
    body_part: Sequence[str] | None,
    dates: tuple[datetime | None, datetime | None],
    accessions: Path | None,
    study: Sequence[str] | None = None,
) -> Wanted:
    """The question that the options ask.

    Raises:
        InputError: the dates are in the wrong order, or a word has wildcards.
        LabelError: the list of accession numbers.
    """
    from client.pacs.accessions import read_accessions
    from client.pacs.query import Wanted

    words = [*(modality or ()), *(body_part or ()), *(study or ())]
    if any(mark in word for word in words for mark in "*?\\,"):
        raise InputError("the search", "wildcards and lists are not used here", "Repeat the option instead")
    begin, end = (None if day is None else day.date() for day in dates)
    if begin is not None and end is not None and begin > end:
        raise InputError("--from", "it is after --to", "Exchange them")
    return Wanted(
        modalities=tuple(word.strip().upper() for word in modality or ()),
        begin=begin,
        end=end,
        body_parts=tuple(word.strip().upper() for word in body_part or ()),
        accessions=None if accessions is None else read_accessions(accessions),
        studies=tuple(study or ()),
    )


def echo(remote: RemoteName = None, *, site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """Try every address of every archive named in site.toml; exit status 8 when one does not answer."""
    from client.pacs.echo import echoes
    from client.pacs.remote import require_remote
    from client.site import load_site

    loaded = load_site(site)
    require_remote(loaded, remote)
    with progress("Asking") as report:
        tried = []
        for one in echoes(loaded, remote):
            tried.append(one)
            report(len(tried), len(tried))
    show(tried, as_json, lambda: _echo_table(tried))
    if not all(one.ok for one in tried):
        raise click.exceptions.Exit(PacsError.exit_status)


def _echo_table(tried: Sequence[Echo]) -> Table:
    return grid(
        "Archives",
        ("remote", "what", "answer", "why", "what to do"),
        (
            (
                one.remote,
                one.what,
                f"ok, {1000 * one.seconds:.0f} ms" if one.ok else f"failed: {one.code}",
                one.rule or None,
                one.remedy or None,
            )
            for one in tried
        ),
    )


def query(
    remote: RemoteName = None,
    *,
    modality: Modalities = None,
    body_part: BodyParts = None,
    begin: First = None,
    end: Last = None,
    accessions: Accessions = None,
    study: Studies = None,
    via: Annotated[str | None, typer.Option(help="dimse or web; by C-FIND where possible.")] = None,
    show_identifiers: Annotated[
        bool, typer.Option("--show-identifiers", help="Also accession numbers and dates; on a terminal only.")
    ] = False,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Count what an archive has, without fetching it. Studies appear under keyed codes."""
    from client.deid.pseudonyms import Pseudonyms
    from client.pacs.connect import finder
    from client.pacs.query import find, summarise
    from client.pacs.remote import find_remote
    from client.site import load_site

    question = wanted(modality, body_part, (begin, end), accessions, study)
    if show_identifiers and (as_json or not sys.stdout.isatty()):
        raise InputError(
            "--show-identifiers",
            "accession numbers are shown on a terminal only, never in a file, a pipe or JSON",
            "Leave it out, or type the command at a terminal",
        )
    loaded = load_site(site)
    caller = find_remote(loaded, remote)
    found: list[StudyFound] = []
    with progress("Asking") as report, finder(caller, via) as asked:
        for one in find(asked, question):
            found.append(one)
            report(len(found), len(found))
    summary = summarise(caller.name, found, question, Pseudonyms.of(loaded))
    identified = found if show_identifiers else None
    show(summary, as_json, lambda: _query_table(loaded, summary, identified))


def _query_table(site: Site, summary: Summary, identified: Sequence[StudyFound] | None) -> Table:
    columns = ["study", "modalities", "series", "instances"]
    rows: list[list[object]] = [
        [code.study, code.modalities, code.series, code.instances or None] for code in summary.codes
    ]
    if identified is not None:
        columns += ["accession", "date"]
        for row, study in zip(rows, identified, strict=True):
            row += [_plain(study.accession), _plain(study.date)]
    noun = "study" if summary.studies == 1 else "studies"
    title = f"Archive {summary.remote} for site {site.name}: {summary.studies} {noun}"
    drawn = grid(title, columns, rows)
    counts = {
        "modality": summary.by_modality,
        "year": summary.by_year,
        "body part": summary.by_body_part,
    }
    lines = [
        f"by {what}: " + (", ".join(f"{word} {count}" for word, count in found.items()) or "nothing")
        for what, found in counts.items()
    ]
    if summary.accessions_not_found:
        lines.append(f"accession numbers asked for that no study has: {summary.accessions_not_found}")
    drawn.caption, drawn.caption_justify = "\n".join(lines), "left"
    return drawn


def _plain(text: str) -> str:
    """What an archive says, without what could move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
