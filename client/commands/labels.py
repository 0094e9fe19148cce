"""`consilium-site labels`: labels for images that are here already, and who labelled what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from client.commands.status import many
from common.cli import Border, JsonFlag, example, grid, show

if TYPE_CHECKING:
    from client.intake.relabel import LabelCounts, LabelsAdded

group = typer.Typer(
    cls=Border,
    help="Labels of images that are here already, or still to come, and who gave them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@group.command(epilog=example("consilium-site labels add second-reader.csv --keep-current"))
def add(
    table: Annotated[
        Path, typer.Argument(help="CSV table: accession (or study, instance), label, source, version.")
    ],
    *,
    keep_current: Annotated[
        bool,
        typer.Option("--keep-current", help="Keep another source's labels as the ones that count."),
    ] = False,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Join a label table to the images that are here. Labels whose image is not here wait for it.

    Every reader's label is kept with source and version. The table's become the ones that count, unless --keep-current.
    """
    from client.intake.relabel import add_labels
    from client.site import load_site

    result = add_labels(load_site(site), table, keep_current=keep_current)
    show(result, as_json, lambda: _added(result))


@group.command("show", epilog=example("consilium-site labels show --json"))
def show_labels(site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """Count the labels of this site by source, version and class, and where readers disagree."""
    from client.index import Index
    from client.intake.relabel import count_labels
    from client.site import load_site

    with Index(load_site(site).index) as index:
        result = count_labels(index)
    show(result, as_json, lambda: _counted(result))


def _added(result: LabelsAdded) -> str:
    told = f"{many(result.lines, 'label')} read: {many(result.images, 'image')} here, {result.new} newly labelled, "
    lines = [told + f"for {result.current} another label counts now."]
    if result.waiting:
        lines.append(f"{many(result.waiting, 'label')} without an image here: joined when it comes.")
    return "\n".join(lines)


def _counted(result: LabelCounts) -> Table:
    drawn = grid(
        "Labels by reader",
        ("source", "version", "images", "of them current", "classes"),
        (
            (
                one.source,
                one.version,
                one.images,
                one.current,
                ", ".join(f"{k}: {n}" for k, n in one.classes.items()),
            )
            for one in result.readers
        ),
    )
    drawn.caption = (
        f"{result.labelled} of {many(result.images, 'image')} with a label; {result.read_twice} labelled by two "
        f"sources or more, {result.disagreements} of them not alike; {many(result.waiting, 'label')} without an image here."
    )
    drawn.caption_justify = "left"
    return drawn
