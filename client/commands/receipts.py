"""What was done to each study, as the audit log tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, show

if TYPE_CHECKING:
    from client.intake.receipt import StudyReceipt

_SEARCHED = {True: "searched for", False: "not searched for, by the site's settings", None: "not said"}


def receipts(
    study: Annotated[
        str, typer.Argument(help="The study's keyed UID, or its beginning; all studies without.")
    ] = "",
    *,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Print the receipts of studies: files, what was done to their elements, by which profile, and the second scan."""
    from client.intake.receipt import study_receipts
    from client.site import load_site

    loaded = load_site(site)
    found = study_receipts(loaded, study)

    def table() -> Table | str:
        if not found:
            return f"No receipt {'of this study ' if study else ''}at {loaded.name}."
        if study and len(found) == 1:
            return grid(f"Receipt of {found[0].study}", ("what", "value"), _rows(found[0]))
        return grid(
            f"Receipts at {loaded.name}",
            ("time", "study", "files", "taken in", "refused", "blanked", "second scan", "methods"),
            (
                (
                    *(one.time[:16].replace("T", " "), one.study, one.files, one.images, one.refused),
                    *(one.blanked, one.verifier, " ".join(one.methods)),
                )
                for one in found
            ),
        )

    show(found, as_json, table)


def _rows(one: StudyReceipt) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("time", f"{one.time[:16].replace('T', ' ')} UTC"),
        ("files", one.files),
    ]
    rows += [("taken in", one.images), ("refused", one.refused), ("second scan", one.verifier)]
    rows += [("burned-in text", _SEARCHED[one.searched])]
    rows += [(f"elements: {name.replace('_', ' ')}", count) for name, count in one.actions.items()]
    rows += [("places blanked", one.blanked), ("methods", " ".join(one.methods)), ("profile", one.profile)]
    return rows
