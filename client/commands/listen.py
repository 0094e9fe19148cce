"""`consilium-site pacs listen`: receive from archives and take in what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, show
from common.logs import configure

if TYPE_CHECKING:
    from rich.table import Table

    from client.pacs.serve import Sight
    from client.pacs.take import Taken


def listen(
    *,
    site: SiteFolder = HERE,
    once: Annotated[
        bool, typer.Option("--once", help="End when nothing came for the quiet time and all is taken in.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="CSV table of labels, read again for every batch of studies.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Listen for C-STORE from the archives named in site.toml, and take in every study that is complete.

    SIGTERM or Ctrl-C ends it: associations that are open finish, and what was not yet taken in stays in the inbox.
    """
    from client.pacs.serve import serve
    from client.pacs.take import Taking
    from client.site import load_site

    loaded = load_site(site)
    with _screen() as tell:
        how = Taking(loaded.pacs.listen.quiet_s, labels, workers)
        taken = serve(loaded, how, once=once, tell=tell)
    show(_figures(taken), as_json, lambda: _table("Taken in from the archive", _figures(taken)))


@contextmanager
def _screen() -> Iterator[Callable[[Sight], None]]:
    """Live counts where stderr is a terminal; else lines of the log, one for each thing that happens."""
    console = Console(stderr=True)
    if not console.is_terminal:
        configure("INFO")
        yield lambda _sight: None
        return
    configure("ERROR")
    with Live(console=console, auto_refresh=False) as live:
        yield lambda sight: live.update(_drawn(sight), refresh=True)


def _drawn(sight: Sight) -> Table:
    refused = {f"refused: {why}": count for why, count in sorted(sight.came.refused.items())}
    rows = {
        "associations open": sight.associations,
        "instances received": sight.came.received,
        "received before": sight.came.again,
        **refused,
        "waiting in the inbox": sight.waiting,
        **_figures(sight.taken),
        "held up by": "nothing" if sight.taken.error is None else str(sight.taken.error),
    }
    return _table(f"Listening on port {sight.port}", rows)


def _figures(taken: Taken) -> dict[str, int]:
    return {
        "studies": taken.studies,
        "images taken in": taken.accepted,
        "known already": taken.unchanged,
        "files refused": taken.refused,
        "ingestions failed": taken.failed,
    }


def _table(title: str, rows: dict[str, object] | dict[str, int]) -> Table:
    return grid(title, ("what", "count"), rows.items())
