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
