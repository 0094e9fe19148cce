"""Images in, refusals explained, a patient out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, progress, show
from common.errors import InputError

if TYPE_CHECKING:
    from client.index import Withdrawal


def ingest(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM, or of PNG/JPEG named in the table.")],
    *,
    labels: Annotated[
        Path | None, typer.Option(help="Label table: accession,label,source,version; optional split.")
    ] = None,
    site: SiteFolder = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    allow_unlabelled: Annotated[
        bool, typer.Option("--allow-unlabelled", help="Also take in images that the table does not name.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take a folder in: de-identify, verify, check, index. Repeat it at will; known files cost nothing.

    A file that fails stays in quarantine with its reason; the others go on. See `refused`.
    """
    from client.intake.ingest import ingest as take_in
    from client.site import load_site

    loaded = load_site(site)
    with progress("Taking in") as report:
        result = take_in(
            loaded, folder, labels, workers=workers, progress=report, allow_unlabelled=allow_unlabelled
        )

    def table() -> Table:
        single = ("seconds", "refused", "by_modality")
        rows = [(key.replace("_", " "), value) for key, value in vars(result).items() if key not in single]
        rows += [("seconds", f"{result.seconds:.1f}")]
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
    pseudonym: Annotated[str | None, typer.Argument(help="The patient's pseudonym in the store.")] = None,
    *,
    patient_id: Annotated[
        str | None, typer.Option(help="The hospital's own patient number instead, as its archive has it.")
    ] = None,
    patient: Annotated[bool, typer.Option("--patient", help="Ask for that number instead, unseen.")] = False,
    issuer: Annotated[str, typer.Option(help="With a patient number: who issued it.")] = "",
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Remove a patient from index, store, quarantine and all future training; lists the runs that used them.

    With --patient the number is typed unseen or comes on stdin: unlike --patient-id, no shell history keeps it.
    """
    from client.site import load_site
    from client.withdraw import withdraw as remove
    from client.withdraw import withdraw_patient

    if [pseudonym is not None, patient_id is not None, patient].count(True) != 1:
        raise InputError(
            "withdraw", "it takes a pseudonym, --patient-id or --patient", "Give exactly one of them"
        )
    if pseudonym is not None and issuer:
        raise InputError("withdraw", "a pseudonym has no issuer", "Leave --issuer out, or give --patient-id")
    loaded = load_site(site)
    if pseudonym is not None:
        result = remove(loaded, pseudonym)
    else:
        number = _patient_number() if patient_id is None else _not_empty(patient_id)
        result = withdraw_patient(loaded, number, issuer)
    show(result, as_json, lambda: _withdrawn(result))


def _withdrawn(result: Withdrawal) -> str:
    if not (result.sop_uids or result.quarantined or result.runs):
        return (
            "No image of this patient is here. They stay out from now on.\n"
            "If you expected some, check the number and its --issuer: together they name a patient."
        )
    images, volumes, originals = map(len, (result.sop_uids, result.volumes, result.quarantined))
    lines = [f"Removed {images} images, {volumes} volumes and {originals} originals in quarantine."]
    lines += [f"Used by run {run}: its model keeps what it learned." for run in result.runs]
    return "\n".join(lines if result.runs else [*lines, "No run used this patient."])


def _patient_number() -> str:
    if sys.stdin.isatty():
        text = str(typer.prompt("Patient number", hide_input=True, err=True))
    else:
        text = sys.stdin.readline()
    return _not_empty(text)


def _not_empty(number: str) -> str:
    if not number.strip():
        raise InputError("the patient number", "it is empty", "Type it, or give it on stdin")
    return number.strip()
