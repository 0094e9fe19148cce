"""Images in, refusals explained, a patient out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from client.commands.status import many
from common.cli import JsonFlag, grid, progress, show
from common.errors import InputError

if TYPE_CHECKING:
    from client.index import Withdrawal
    from client.intake.report import IngestReport


def ingest(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM, or of PNG/JPEG named in the table.")],
    *,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV table: accession, label, source, version and, if you like, split."),
    ] = None,
    site: SiteFolder = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    allow_unlabelled: Annotated[
        bool, typer.Option("--allow-unlabelled", help="Also take in images that the table does not name.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take a folder in: de-identify, verify, check, index. Repeat it at will; known files cost nothing.

    A file that fails stays in quarantine with its reason; the others go on. See `quarantine list`.
    """
    from client.intake.ingest import ingest as take_in
    from client.site import load_site

    loaded = load_site(site)
    with progress("Taking in") as report:
        result = take_in(
            loaded, folder, labels, workers=workers, progress=report, allow_unlabelled=allow_unlabelled
        )
    show(result, as_json, lambda: _taken_table(loaded.name, result, labelled=labels is not None))


def _taken_table(name: str, result: IngestReport, *, labelled: bool) -> Table:
    rows: list[tuple[str, object]] = [("files received", result.received)]
    rows += [("images taken in", result.accepted), ("known already, or sent twice", result.unchanged)]
    rows += [(f"refused: {code}", count) for code, count in sorted(result.refused.items())]
    rows += [("patients of the site, in all", result.patients), ("volumes made (CT, MR)", result.volumes)]
    if labelled:
        rows += [("labels whose image was refused", result.labels_without_image)]
        rows += [("images without a label", result.images_without_label)]
    drawn = grid(f"Ingestion at {name}", ("what", "count"), [*rows, ("time", f"{result.seconds:.1f} s")])
    if result.refused:
        drawn.caption = "What to do about the refused ones: consilium-site quarantine list"
        drawn.caption_justify = "left"
    return drawn


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
        result = remove(loaded, _pseudonym(pseudonym))
    else:
        number = _patient_number() if patient_id is None else _not_empty(patient_id)
        result = withdraw_patient(loaded, number, issuer)
    show(result, as_json, lambda: _withdrawn(result))


def _pseudonym(text: str) -> str:
    """A mistyped pseudonym would withdraw nobody and say that it was done."""
    if not re.fullmatch(r"P[0-9a-f]{32}", text):
        raise InputError(
            "the pseudonym",
            "it is P and 32 characters of 0-9 and a-f",
            "Copy it whole, or give --patient and the hospital's own number",
        )
    return text


def _withdrawn(result: Withdrawal) -> str:
    if not (result.sop_uids or result.quarantined or result.runs):
        return (
            "No image of this patient is here. They stay out from now on.\n"
            "If you expected some, check the pseudonym, or the number and its --issuer: together they name a patient."
        )
    counts = zip(
        (result.sop_uids, result.volumes, result.quarantined), ("image", "volume", "original"), strict=True
    )
    images, volumes, originals = (many(len(found), noun) for found, noun in counts)
    lines = [f"Removed {images}, {volumes} and {originals} in quarantine."]
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
