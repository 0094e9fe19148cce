"""Who takes part: making a federation, inviting, admitting, listing, revoking, renewing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli import JsonFlag, grid, show
from common.errors import InputError
from server.commands.options import HERE, Folder, SiteArgument

if TYPE_CHECKING:
    from server.federation_folder import Consortium


@dataclass(frozen=True)
class Made:
    """What `init` made."""

    federation: str
    fingerprint: str
    next: str


@dataclass(frozen=True)
class Invitation:
    """What `invite` gives: the kit by one way, the code by another."""

    site: str
    kit: str
    code: str
    days: int


@dataclass(frozen=True)
class Line:
    """One hospital, as `list` shows it."""

    site: str
    state: str
    fingerprint: str
    certificate_ends: str
    last_seen: str


def init(
    name: Annotated[str, typer.Argument(help="The federation's short name: a-z, 0-9, hyphens.")],
    address: Annotated[
        list[str], typer.Option(help="host:port at which hospitals reach the edge; may be repeated.")
    ],
    folder: Folder = HERE,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Passphrase of the authority's key; made in secrets/ when not given.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a federation: its authority, the server's key, the database."""
    from common.identity import fingerprint
    from server import edge
    from server.federation_folder import Consortium

    edge.check_path(folder)
    made = Consortium.init(folder, name, address, passphrase_file)
    result = Made(
        name,
        fingerprint(made.identity.public),
        "Back up consortium.key, pki/ and secrets/ now. Keep the passphrase of the authority apart from pki/.",
    )
    show(
        result,
        as_json,
        lambda: (
            f"Federation {name} is ready in {folder.resolve()}.\n"
            f"Fingerprint of its key: {result.fingerprint}\n{result.next}"
        ),
    )


def invite(
    site: SiteArgument,
    folder: Folder = HERE,
    kit: Annotated[
        Path | None, typer.Option(help="Where to write the kit; SITE-kit.zip here when not given.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write an enrolment kit for a hospital, and show its one-time code once."""
    from common.kit import write_kit
    from server.enrolment import invite as invited

    consortium = _open(folder)
    made, code = invited(consortium, site)
    path = kit or Path(f"{site}-kit.zip")
    write_kit(made, path)
    result = Invitation(site, str(path), code, consortium.settings.enrolment.code_days)
    show(
        result,
        as_json,
        lambda: (
            f"Send {path} to {site}. Tell it this code by another way, within {result.days} days:\n\n"
            f"  {code}\n\nIt is not shown again. Fingerprint of this server's key: {made.fingerprint}"
        ),
    )


def admit(
    site: SiteArgument,
    folder: Folder = HERE,
    fingerprint: Annotated[
        str, typer.Option(help="What the hospital read to you; refused when its key has another.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Take a hospital in that asked with its code; compare its key's fingerprint by telephone first."""
    from common.identity import fingerprint as fingerprint_of
    from server.enrolment import admit as admitted

    consortium = _open(folder)
    row = consortium.book.site(site)
    known = fingerprint_of(row.asked_identity) if row and row.asked_identity else ""
    if known and fingerprint and not _same(fingerprint, known):
        raise InputError(
            site, "its key has another fingerprint", "Do not admit it; call the hospital", code="fingerprint"
        )
    if known and not fingerprint and not as_json:
        typer.confirm(f"Has {site} read this fingerprint to you?\n  {known}\n", abort=True)
    given = admitted(consortium, site)
    roster = consortium.book.roster()
    version = roster.version if roster else 0
    result = {"site": site, "certificate_ends": given.ends.isoformat(), "roster": version}
    show(
        result,
        as_json,
        lambda: (
            f"{site} is admitted; its certificate ends {given.ends:%Y-%m-%d}. The roster has version {version}."
        ),
    )


def list_(folder: Folder = HERE, as_json: JsonFlag = False) -> None:
    """Show every hospital: whether it was admitted, until when, and when it was last seen."""
    consortium = _open(folder)
    lines = [_line(consortium, row.name) for row in consortium.book.sites()]
    roster = consortium.book.roster()
    title = f"{consortium.name}, roster version {roster.version if roster else '–'}"
    columns = ("hospital", "state", "key", "certificate ends", "last seen")
    cells = [(row.site, row.state, row.fingerprint, row.certificate_ends, row.last_seen) for row in lines]
    show(lines, as_json, lambda: grid(title, columns, cells))


def revoke(
    site: SiteArgument,
    folder: Folder = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """End a hospital's membership: its certificates at once, and a new roster without it."""
    from server import edge
    from server.enrolment import revoke as revoked

    consortium = _open(folder)
    if not yes:
        typer.confirm(f"End the membership of {site}?", abort=True)
    roster = revoked(consortium, site)
    told = edge.reload(consortium)
    version = roster.version if roster else 0
    result = {"site": site, "roster": version, "edge_told": told}
    more = "" if told else " The edge does not run; it reads the revocation list when it starts."
    show(result, as_json, lambda: f"{site} is no member any more. The roster has version {version}.{more}")


def renew(
    folder: Folder = HERE,
    roster_above: Annotated[
        int,
        typer.Option(
            min=0,
            help="After a restore: sign the members under a version above this one, the highest that a hospital knows.",
        ),
    ] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Renew the server's own certificates where they end soon, and sign what a crash or a restore left unsigned."""
    from server import edge
    from server.enrolment import raise_roster, settle

    consortium = _open(folder)
    changed = settle(consortium)
    roster = raise_roster(consortium, roster_above) if roster_above else consortium.book.roster()
    told = edge.reload(consortium)
    version = roster.version if roster else 0
    result = {"changed": changed, "edge_told": told, "roster": version}
    words = (
        "The edge has a new certificate or revocation list." if changed else "The edge's certificate lasts."
    )
    show(result, as_json, lambda: f"{words} The roster has version {version}.")


def _open(folder: Path) -> Consortium:
    from server.federation_folder import Consortium

    return Consortium.open(folder)


def _line(consortium: Consortium, site: str) -> Line:
    from common.identity import fingerprint

    row = consortium.book.site(site)
    if row is None:
        raise InputError(site, "it was never invited", "See `consilium-server list`", code="site-unknown")
    newest = consortium.book.newest(row.name)
    key = row.asked_identity or row.identity
    seen = datetime.fromtimestamp(row.seen_at, UTC).isoformat(timespec="minutes") if row.seen_at else "–"
    ends = newest[1].date().isoformat() if newest else "–"
    return Line(row.name, row.state, fingerprint(key) if key else "–", ends, seen)


def _same(told: str, known: str) -> bool:
    """Whether the digits that were read agree; with or without `sha256:`, at least sixteen of them."""
    digits = "".join(told.lower().removeprefix("sha256:").split())
    return len(digits) >= 16 and known.removeprefix("sha256:").startswith(digits)
