"""What de-identification does with an attribute; whose a pseudonym is; another key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import Border, JsonFlag, example, grid, show
from common.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from client.deid.explain import Line
    from client.deid.profile import Profile
    from client.deid.rotate import Rotation

group = typer.Typer(
    cls=Border,
    help="What de-identification does, whose a pseudonym is, and another key.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_COLUMNS = ("tag", "attribute", "the standard demands", "here", "verdict", "what happens", "why")


@group.command("explain", epilog=example("consilium-site deid explain PatientBirthDate"))
def explain(
    attribute: Annotated[
        str | None, typer.Argument(help="A keyword or tag, e.g. PatientName or (0010,0010).")
    ] = None,
    *,
    site: SiteFolder = HERE,
    html: Annotated[Path | None, typer.Option(help="Write the whole table as a page to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what happens to one attribute, or to every attribute of PS3.15's table and of the profile.

    With a site, by the rules of that site, its own stricter ones included; else by those of the release.
    """
    from client.deid.explain import everything_else, lines

    profile, whose = _profile(site)
    if attribute is not None:
        rows: tuple[Line, ...] = (explain_one(attribute, profile),)
    else:
        rows = (*lines(profile), everything_else())
    if html is not None:
        from client.deid.explain_page import write_page

        write_page(lines(profile), profile, whose, html)
    show([_plain(line) for line in rows], as_json, lambda: _drawn(rows, whose, html))


def explain_one(attribute: str, profile: Profile) -> Line:
    """What happens to one attribute, given by keyword or tag.

    Raises:
        InputError: when DICOM knows no such attribute.
    """
    from client.deid.explain import one

    digits = re.fullmatch(r"\(?([0-9a-fA-F]{4}),? ?([0-9a-fA-F]{4})\)?", attribute.strip())
    line = one(profile, int(digits[1] + digits[2], 16) if digits else attribute.strip())
    if line is None:
        raise InputError(
            attribute, "DICOM knows no such attribute", "Give a keyword like PatientName, or (gggg,eeee)"
        )
    return line


def _profile(site: Path) -> tuple[Profile, str]:
    """The profile to explain, and whose it is."""
    from client.deid.profile import built_in
    from client.deid.tighten import effective
    from client.site import load_site

    if not (site / "site.toml").exists():
        return built_in(), "this release"
    loaded = load_site(site)
    return effective(loaded.deid, loaded.tighten), loaded.name


def _plain(line: Line) -> dict[str, str]:
    return {**vars(line), "demand": line.demand}


def _drawn(rows: tuple[Line, ...], whose: str, html: Path | None) -> Table | str:
    if html is not None:
        return f"Written to {html}."
    cells = ((r.tag, r.attribute, r.demand, r.treatment, r.verdict, r.action, r.reason) for r in rows)
    return grid(f"De-identification by {whose}", _COLUMNS, cells)


@group.command("lookup", epilog=example("consilium-site deid lookup P0123… --reason care"))
def lookup(
    pseudonym: Annotated[
        str, typer.Argument(help="Of a patient (P…), an accession number (A…) or a study (2.25.…).")
    ],
    *,
    reason: Annotated[
        str, typer.Option(help="Why you ask: one of the words above. It is written into the audit log.")
    ] = "unspecified",
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Say whose a pseudonym is. That you asked is in the audit log before you see the answer.

    Reasons: unspecified, care, consent, labels, quality, audit, legal.
    """
    from client.deid.lookup import look_up
    from client.site import load_site

    found = look_up(load_site(site), pseudonym, reason)
    issuer = f" (issuer {found.issuer})" if found.issuer else ""
    show(found, as_json, lambda: f"{found.kind} {found.value}{issuer}")


@group.command("rotate-key", epilog=example("consilium-site deid rotate-key"))
def rotate_key(
    *,
    site: SiteFolder = HERE,
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="All is taken in again: destroy the old key and its look-up table."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Give every patient another pseudonym. Removes all images here: take them in again from the archive.

    Withdrawn patients stay out, and nobody's privacy budget is given back. A rotation that was cut short is
    finished by the same command.
    """
    from client.deid.rotate import at_stake, rotate
    from client.deid.rotate import confirm as destroy
    from client.site import load_site
    from client.site_keys import ROTATING

    loaded = load_site(site, rotating=True)
    if confirm:
        awaited = destroy(load_site(site))
        show({"awaited": awaited}, as_json, lambda: f"The old key is destroyed. {_awaited(awaited)}")
        return
    if not (yes or (loaded.secrets / ROTATING).exists()):
        stake = at_stake(loaded)
        typer.confirm(
            f"This removes {stake.images} images and {stake.quarantined} originals in quarantine, with what was decided "
            "about them. They must be taken in again. Go on?",
            abort=True,
            err=True,
        )
    result = rotate(site)
    show(result, as_json, lambda: _rotated(result))


def _rotated(result: Rotation) -> str:
    lines = [
        "The key is another one: back up secrets/pseudonym.key now. Start again what was running.",
        "Take the images and their labels in again.",
        _awaited(result.awaited),
        f"{result.withdrawn} withdrawn patients stay out.",
    ]
    if result.old_key == "kept":
        lines.append("When that is done, destroy the old key: consilium-site deid rotate-key --confirm")
    return "\n".join(lines)


def _awaited(count: int) -> str:
    if not count:
        return "No patient of an earlier run is missing."
    return f"{count} patients of earlier runs have not come again."
