"""`pacs pull` and `pacs watch`: fetch what is wanted, and take it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.table import Table

from client.commands.ask import Accessions, BodyParts, First, Last, Modalities, RemoteName, Studies, wanted
from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, progress, say, show
from common.errors import ConsiliumError, PacsError
from common.logs import configure

if TYPE_CHECKING:
    from client.pacs.drain import Drain
    from client.pacs.pull import Pulled
    from client.pacs.take import Taken
    from client.pacs.watch import Seen

Labels = Annotated[Path | None, typer.Option(help="CSV table of labels, joined as images are taken in.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")]
NoTake = Annotated[
    bool, typer.Option("--no-take", help="Leave what was fetched in the inbox; `pacs listen` takes it in.")
]


def pull(
    remote: RemoteName = None,
    *,
    modality: Modalities = None,
    body_part: BodyParts = None,
    begin: First = None,
    end: Last = None,
    accessions: Accessions = None,
    study: Studies = None,
    via: Annotated[str | None, typer.Option(help="get, web or move; the first that works.")] = None,
    attempts: Annotated[int, typer.Option(min=1, max=20, help="Tries for each study.")] = 3,
    again: Annotated[bool, typer.Option("--again", help="Also fetch what was fetched before.")] = False,
    no_take: NoTake = False,
    labels: Labels = None,
    workers: Workers = None,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Fetch studies from an archive and take them in. Repeat it at will: only what is missing is fetched.

    A study that fails is tried again, then named by its code, and the others go on. Exit status 8 when some failed.
    """
    from client.pacs.drain import Drain
    from client.pacs.inbox import Inbox
    from client.pacs.order import Order
    from client.pacs.order import pull as run
    from client.pacs.remote import find_remote
    from client.site import load_site

    question = wanted(modality, body_part, (begin, end), accessions, study)
    loaded = load_site(site)
    order = Order(find_remote(loaded, remote), question, via, attempts, again)
    drain = Drain(loaded, Inbox.of(loaded), labels, workers, take=not no_take)
    with progress("Fetching") as report:
        pulled = run(loaded, order, drain, report)
    error = _taken_in(drain)
    show(PullResult(pulled, _counts(drain.taken)), as_json, lambda: _pulled_table(pulled, drain.taken))
    if pulled.stopped is not None:
        say(f"error: {pulled.stopped.rule}. {pulled.stopped.remedy}")
    if error is not None:
        raise error
    if pulled.failed or pulled.stopped is not None:
        raise click.exceptions.Exit(PacsError.exit_status)


def watch(
    remote: RemoteName = None,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when all that is there has been dealt with.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 10.0,
    modality: Modalities = None,
    body_part: BodyParts = None,
    accessions: Accessions = None,
    no_take: NoTake = False,
    labels: Labels = None,
    workers: Workers = None,
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Follow an Orthanc: every study that becomes stable there is fetched and taken in, late instances too.

    It can be stopped at any moment, and goes on from there. Other archives: `pacs listen`, or `pacs pull` repeated.
    """
    from client.pacs.drain import Drain
    from client.pacs.inbox import Inbox
    from client.pacs.order import Watcher
    from client.pacs.remote import find_remote
    from client.pacs.stop import stop_signals
    from client.site import load_site

    question = wanted(modality, body_part, (None, None), accessions)
    loaded = load_site(site)
    drain = Drain(loaded, Inbox.of(loaded), labels, workers, take=not no_take)
    configure("WARNING" if once else "INFO")
    watcher = Watcher(loaded, find_remote(loaded, remote), question, drain, every)
    with stop_signals(watcher.stopping):
        seen = watcher.run(once=once)
    show(WatchResult(seen, _counts(drain.taken)), as_json, lambda: _seen_table(seen, drain.taken))


@dataclass(frozen=True)
class PullResult:
    """What `pacs pull --json` prints."""

    pulled: Pulled
    taken: dict[str, int]


@dataclass(frozen=True)
class WatchResult:
    """What `pacs watch --json` prints."""

    seen: Seen
    taken: dict[str, int]


def _taken_in(drain: Drain) -> ConsiliumError | None:
    """Take in what came; the error, so that the report is printed before it."""
    with progress("Taking in"):
        try:
            drain.run()
        except ConsiliumError as error:
            return error
    return None


def _counts(taken: Taken) -> dict[str, int]:
    return {
        "studies": taken.studies,
        "images": taken.accepted,
        "known": taken.unchanged,
        "refused": taken.refused,
    }


def _pulled_table(pulled: Pulled, taken: Taken) -> Table:
    rows: list[tuple[str, object]] = [
        ("studies wanted", pulled.studies),
        ("whole now", pulled.whole),
        ("instances fetched", pulled.instances),
    ]
    if pulled.passed_over:
        rows.append(("passed over: no images", pulled.passed_over))
    if pulled.accessions_not_found:
        rows.append(("accession numbers not found", pulled.accessions_not_found))
    rows += [(f"failed: study {one.study}", f"{one.code}. {one.remedy}") for one in pulled.failed]
    rows.append(("time", f"{pulled.seconds:.1f} s"))
    return grid(
        f"Pulled from {pulled.remote} by {pulled.via}", ("what", "value"), [*rows, *_taken_rows(taken)]
    )


def _seen_table(seen: Seen, taken: Taken) -> Table:
    rows: list[tuple[str, object]] = [
        ("changes read", seen.changes),
        ("studies fetched", seen.studies),
        ("instances fetched", seen.instances),
    ]
    if seen.restarts:
        rows.append(("list of changes begun anew", seen.restarts))
    if seen.failed:
        rows.append(("fetches that failed", seen.failed))
    return grid("Watched", ("what", "value"), [*rows, *_taken_rows(taken)])


def _taken_rows(taken: Taken) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("images taken in", taken.accepted), ("known already", taken.unchanged)]
    if taken.refused:
        rows.append(("refused, or waiting; see consilium-site quarantine list", taken.refused))
    return rows
