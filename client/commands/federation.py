"""Joining a federation and staying in it: `enrol`, `renew`, `roster`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, say, show

if TYPE_CHECKING:
    from client.enrolment import Enrolment
    from client.membership import Membership
    from client.site import Site
    from common.roster import Roster

_EVERY_S = 10.0
"""How often a waiting `enrol` asks again; the edge allows ten in a minute."""
_PASSING = ("busy", "unreachable", "unavailable")
"""What a waiting `enrol` waits out."""


def enrol(
    kit: Annotated[Path, typer.Argument(help="The kit.zip that the consortium sent.")],
    site: SiteFolder = HERE,
    code_file: Annotated[
        Path | None,
        typer.Option(help="File with the one-time code; asked for at the terminal when not given."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="The code was sent before: only ask whether we were admitted.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for being admitted.")] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Join a federation: keys are made here and never leave, its authority is pinned."""
    from client.enrolment import enrol as enrolled
    from client.site import load_site
    from common.kit import read_kit

    loaded = load_site(site)
    read = read_kit(kit, loaded.name)
    code = ""
    if not again:
        say(f"Federation {read.federation}. Compare with the consortium: {read.fingerprint}")
        code = _one_time_code(code_file)
    until = time.monotonic() + wait
    done = _asked_until(lambda: enrolled(loaded, read, ""), until, enrolled(loaded, read, code))
    show(done, as_json, lambda: _where_it_stands(loaded.name, done, kit))


def _one_time_code(file: Path | None) -> str:
    """The code of the letter: from a file, or typed at the terminal. Raises `InputError`."""
    from common.errors import InputError

    try:
        return file.read_text().strip() if file else str(typer.prompt("One-time code", err=True))
    except OSError:
        raise InputError(
            "--code-file", "it cannot be read", "Give a file with the code", code="kit-code"
        ) from None


def _asked_until(ask: Callable[[], Enrolment], until: float, done: Enrolment) -> Enrolment:
    """`done`, or what asking again came to: until we are admitted or the clock says `until` (monotonic seconds)."""
    from common.errors import FederationError

    while not done.admitted and (left := until - time.monotonic()) > 0:
        time.sleep(min(_EVERY_S, left))
        try:
            done = ask()
        except FederationError as error:
            if error.code not in _PASSING:
                raise
    return done


def _where_it_stands(name: str, done: Enrolment, kit: Path) -> str:
    if done.admitted and done.ends:
        return (
            f"{name} is a member of {done.federation}; its certificate ends {done.ends:%Y-%m-%d}"
            " and renews itself."
        )
    return (
        f"{name} has asked to join {done.federation}. Read this to the consortium:\n  {done.fingerprint}\n"
        f"Once they have admitted you: consilium-site enrol {kit.name} --again"
    )


def renew(
    site: SiteFolder = HERE,
    now: Annotated[bool, typer.Option("--now", help="Even if the certificate lasts.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Change the certificate where it ends within 30 days, and fetch the newest roster; `start` does it by itself."""
    from client.enrolment import certificate
    from client.enrolment import renew as renewed
    from client.membership import offered
    from client.site import load_site

    loaded = load_site(site)
    given = renewed(loaded, always=now)
    ends = certificate(loaded).ends
    waiting = offered(loaded)
    result = {"renewed": given is not None, "ends": ends.isoformat(), "roster_waiting": waiting is not None}
    words = "A new certificate" if given else "The certificate lasts; it"
    more = " A new roster waits: consilium-site roster." if waiting else ""
    show(result, as_json, lambda: f"{words} ends {ends:%Y-%m-%d}.{more}")


def roster(
    site: SiteFolder = HERE,
    accept: Annotated[int, typer.Option(help="Version to accept from now on; as shown.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show who takes part, and what a waiting roster would change; accept it."""
    from client.enrolment import kit_of
    from client.membership import load_membership, offered
    from client.site import load_site
    from common.errors import FederationError

    loaded = load_site(site)
    known, new = load_membership(loaded), offered(loaded)
    if known is None:
        raise FederationError(
            loaded.name, "it has not been enrolled", "Run `consilium-site enrol kit.zip`", code="not-enrolled"
        )
    if accept:
        known, new = _accepted(loaded, known, new, accept), None
    rows = _members(known.roster, new)
    kit = kit_of(loaded)
    title = f"{known.roster.federation}, version {known.roster.version}"
    if new:
        title += f"; version {new.version} waits: consilium-site roster --accept {new.version}"
    result = {
        "version": known.roster.version,
        "waiting": new.version if new else None,
        "server": kit.fingerprint if kit else "",
        "members": [{"site": name, "key": key, "change": change} for name, key, change in rows],
    }
    show(result, as_json, lambda: grid(title, ("hospital", "key", "change"), rows))


def _accepted(site: Site, known: Membership, new: Roster | None, version: int) -> Membership:
    """The waiting roster, held to from now on. Raises `FederationError` where another version waits, or none."""
    from client.membership import pin
    from common.errors import FederationError

    if new is None or new.version != version:
        raise FederationError(
            "roster",
            f"version {version} does not wait here",
            "See `consilium-site roster`",
            code="roster-old",
        )
    return pin(site, new, known.server_key)


def _members(known: Roster, new: Roster | None) -> list[tuple[str, str, str]]:
    """Name, fingerprint of the key, and what the waiting roster would change, of everybody on either."""
    from common.identity import fingerprint

    now = {member.name: member.key for member in known.members}
    then = {member.name: member.key for member in new.members} if new else now
    return [
        (name, fingerprint(then.get(name) or now[name]), _change(now.get(name), then.get(name)))
        for name in sorted({*now, *then})
    ]


def _change(now: str | None, then: str | None) -> str:
    if now == then:
        return ""
    if now is None:
        return "added"
    return "left" if then is None else "another key"
