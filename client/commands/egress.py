"""What left this hospital, for whoever has to answer for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, example, grid, make_app, show

if TYPE_CHECKING:
    from client.departures import Account, Departure

group = make_app(
    "What left this hospital: when, to whom, for which study and run, how large, and the SHA-256 of its very bytes."
)


@dataclass(frozen=True)
class Recognised:
    """Whether a message was let out here, and when."""

    left: bool
    departures: tuple[Departure, ...]


@group.command("show", epilog=example("consilium-site egress show --run run-0123"))
def show_departures(
    *,
    run: Annotated[str, typer.Option(help="Only what left for this run.")] = "",
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Tell what left, from the audit log, after checking that the log is whole."""
    from client.departures import account
    from client.site import load_site

    loaded = load_site(site)
    found = account(loaded, run)

    def table() -> Table | str:
        if not found.departures:
            return f"Nothing has left {loaded.name}{' for this run' if run else ''}."
        title = f"What left {loaded.name}: {_sums(found)}"
        head = ("time (UTC)", "what", "to", "study", "run", "round", "word", "bytes", "SHA-256 of the bytes")
        return grid(title, head, map(_row, found.departures))

    show(found, as_json, table)


@group.command("verify", epilog=example("consilium-site egress verify saved-message.bin"))
def verify_file(
    file: Annotated[Path, typer.Argument(help="A message as it was received or captured.")],
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Compare a saved message with what the log says left; exit status 2 when it did not leave here."""
    from client.departures import recognise
    from client.site import load_site

    loaded = load_site(site)
    found = recognise(loaded, file)

    def words() -> str:
        if not found:
            return f"These bytes did not leave {loaded.name}: no line of its audit log has their SHA-256."
        when = "; ".join(
            f"{one.time[:19].replace('T', ' ')} UTC, {one.what}, to {_to(one)}, study {one.study or '–'}, run {one.run or '–'} round {one.round}, line {one.line}"
            for one in found
        )
        return f"These bytes left {loaded.name}: {when}."

    show(Recognised(bool(found), found), as_json, words)
    if not found:
        raise typer.Exit(2)


def _sums(found: Account) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.messages.items()))
    return f"{kinds}; {found.bytes:,} bytes for {len(found.runs)} runs; log whole, {found.log_lines} lines"


def _row(one: Departure) -> tuple[object, ...]:
    time = one.time[:19].replace("T", " ")
    about = (one.study or None, one.run or None, one.round, one.code or None)
    return (time, one.what, _to(one), *about, f"{one.bytes:,}", one.digest)


def _to(one: Departure) -> str:
    """The consortium's server by its key; `ledger show` has the whole fingerprint."""
    return f"server {one.to[:19]}" if one.to else "no key pinned yet"
