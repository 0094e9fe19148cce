"""What was refused or waits for a person; out of the quarantine, one way or the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from client.commands.status import many
from common.cli import Border, JsonFlag, example, grid, show
from common.errors import InputError

if TYPE_CHECKING:
    from client.intake.quarantine import Refusal
    from client.intake.release import Decided
    from client.intake.summary import RefusedRow
    from client.site import Site

group = typer.Typer(
    cls=Border,
    help="What was refused, and why; what waits for a person; out again, one way or the other.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="The identifier that `quarantine list` shows.")]
Note = Annotated[str, typer.Option(help="A slug for the audit log, such as a ticket's number; no patient.")]
_SHOWN_IDS = 3


@dataclass(frozen=True)
class Shown:
    """One refused file; nothing in it names a patient."""

    id: str
    code: str
    state: str
    rule: str
    remedy: str
    modality: str
    bytes: int
    since: str
    days_left: int
    releasable: bool
    original: bool
    """Whether the sealed original is there."""
    ways: tuple[str, ...]
    """By which it came: `folder`, `archive` or both."""
    boxes: tuple[tuple[int, ...], ...]
    """(frame, top, left, bottom, right) of what a person should look at."""
    picture: str = ""
    """Where the thumbnail was written."""


@group.command("list", epilog=example("consilium-site quarantine list"))
def list_(
    *,
    site: SiteFolder = HERE,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only what waits for a person.")] = False,
    expire: Annotated[
        bool, typer.Option("--expire", help="First remove what the policy keeps no longer.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List by reason what was refused or waits: how many, since when, the rule, and what to do."""
    from client.intake import cli_rows
    from client.intake.begin import alone
    from client.intake.begin import expire as remove
    from client.site import load_site

    loaded = load_site(site)
    if expire:
        with alone(loaded):
            remove(loaded)
    rows = [row for row in cli_rows(loaded) if row.state == "waiting" or not waiting]
    show(rows, as_json, lambda: _list_table(loaded.name, rows, waiting=waiting))


@group.command("show", epilog=example("consilium-site quarantine show 0123456789abcdef"))
def show_(
    id_: Id,
    *,
    site: SiteFolder = HERE,
    thumbnail: Annotated[
        Path | None,
        typer.Option(help="Draw a small picture of it into this PNG file; it is identified data."),
    ] = None,
    frame: Annotated[int, typer.Option(min=0, help="Of several frames, which one to draw; from 0.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show one refused file: its reason, what to do, and where a person should look."""
    from client.index import Index
    from client.intake.quarantine import Quarantine
    from client.intake.release import find
    from client.site import load_site

    loaded = load_site(site)
    with Index(loaded.index) as index:
        refusal = find(Quarantine.of(loaded), id_, index)
    if thumbnail is not None:
        _draw(loaded, refusal, thumbnail, frame)
    shown = _shown(loaded, refusal, thumbnail)
    show(shown, as_json, lambda: _shown_table(shown))


@group.command(
    "release", epilog=example("consilium-site quarantine release 0123456789abcdef --reason harmless")
)
def release(
    id_: Id,
    *,
    reason: Annotated[str, typer.Option(help="nothing-there, blanked, harmless or quality-fine.")],
    note: Note = "",
    as_it_is: Annotated[
        bool, typer.Option("--as-it-is", help="Blank nothing; else the places that `show` lists are blanked.")
    ] = False,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Let an image in after all. It takes the way of every image again: second scan, gate, index.

    A label that waits for it is joined; one that was not kept, when you give its table again with the same `ingest`.
    """
    from client.intake.quarantine import Quarantine
    from client.intake.reasons import Reason
    from client.intake.release import find
    from client.intake.release import release as let_in
    from client.site import load_site

    loaded = load_site(site)
    refusal = find(Quarantine.of(loaded), id_)
    boxes = () if as_it_is else tuple(dict.fromkeys((*refusal.decision.blank, *refusal.boxes)))
    decided = let_in(loaded, id_, boxes, Reason(reason, note))
    show(decided, as_json, lambda: _said(decided))


@group.command(
    "discard", epilog=example("consilium-site quarantine discard 0123456789abcdef --reason unusable")
)
def discard(
    id_: Id,
    *,
    reason: Annotated[
        str | None, typer.Option(help="identifies, unusable, not-wanted or other; not needed with --undo.")
    ] = None,
    note: Note = "",
    undo: Annotated[
        bool, typer.Option("--undo", help="It was a mistake: the next ingestion judges the file anew.")
    ] = False,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Remove an original for good. The same file, sent again, stays out."""
    from client.intake.reasons import Reason
    from client.intake.release import discard as remove
    from client.intake.release import undo_discard
    from client.site import load_site

    if undo == (reason is not None):
        raise InputError("discard", "it takes --reason, or --undo alone", "Give exactly one of them")
    loaded = load_site(site)
    if reason is None:
        undo_discard(loaded, id_)
        show(
            {"id": id_, "state": "forgotten"}, as_json, lambda: "Send the file again: it will be judged anew."
        )
        return
    decided = remove(loaded, id_, Reason(reason, note))
    show(decided, as_json, lambda: _said(decided))


def _list_table(name: str, rows: Sequence[RefusedRow], *, waiting: bool) -> Table | str:
    if not rows:
        return f"Nothing {'waits' if waiting else 'was refused'} at {name}."
    drawn = grid(
        f"In quarantine at {name}",
        ("code", "files", "state", "oldest", "left", "rule", "what to do", "IDs"),
        (
            (
                *(row.code, row.count, row.state, many(row.oldest_days, "day")),
                *(many(row.days_left, "day"), row.rule, row.remedy, _ids(row.ids)),
            )
            for row in rows
        ),
    )
    drawn.caption = (
        "Originals are sealed under the site's key. Every ID: --json. One of them: quarantine show ID."
    )
    drawn.caption_justify = "left"
    return drawn


def _shown_table(shown: Shown) -> Table:
    rows: list[tuple[str, object]] = [
        ("reason", f"{shown.code}: {shown.rule}"),
        ("what to do", shown.remedy),
    ]
    rows += [("state", shown.state), ("can be released", "yes" if shown.releasable else "never")]
    rows += [("modality", shown.modality), ("size", f"{shown.bytes / 1000:.1f} kB")]
    if shown.ways:
        rows += [("came by", " and ".join(shown.ways))]
    rows += [("since", shown.since[:16].replace("T", " ")), ("kept for", many(shown.days_left, "day"))]
    rows += [("look at", f"frame {f}, rows {t}-{b}, columns {a}-{z}") for f, t, a, b, z in shown.boxes]
    if not shown.original:
        rows += [("original", "not there")]
    if shown.picture:
        rows += [("picture", shown.picture)]
    return grid(f"Quarantine {shown.id}", ("what", "value"), rows)


def _ids(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return " ".join(ids[:_SHOWN_IDS]) + more


def _shown(site: Site, refusal: Refusal, picture: Path | None) -> Shown:
    from client.intake.quarantine import Quarantine
    from client.intake.release import releasable
    from client.intake.summary import age_days

    return Shown(
        id=refusal.id,
        code=refusal.code,
        state=refusal.state,
        rule=refusal.rule,
        remedy=refusal.remedy,
        modality=refusal.modality,
        bytes=refusal.bytes,
        since=refusal.since,
        days_left=max(0, site.policy.quarantine_days - age_days(refusal)),
        releasable=releasable(refusal),
        original=Quarantine.of(site).has_original(refusal.id),
        ways=refusal.ways,
        boxes=tuple(map(tuple, refusal.boxes)),
        picture="" if picture is None else str(picture),
    )


def _draw(site: Site, refusal: Refusal, path: Path, frame: int) -> None:
    from client.files import whole_file
    from client.intake.quarantine import Quarantine
    from client.review.painter import THUMBNAIL_SIDE, Ask, Painter

    private = site.data / "staging"
    with Painter() as painter, Quarantine.of(site).original(refusal.id, private) as file:
        drawn = painter.picture(refusal.id, file, Ask(frame, side=THUMBNAIL_SIDE))
    with whole_file(path) as target:
        os.fchmod(target.fileno(), 0o600)
        target.write(drawn.png)


def _said(decided: Decided) -> str:
    if decided.state == "accepted":
        places = f" with {many(len(decided.boxes), 'place')} blanked" if decided.boxes else ""
        return f"{decided.id} is taken in{places}. A label that waited is joined; else repeat `ingest` with its table."
    if decided.state == "discarded":
        return f"{decided.id} is removed, and stays out."
    return f"{decided.id} stays: {decided.code}: {decided.rule}. {decided.remedy}."
