"""Looking at the federation: a table, and the live page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from common.cli import JsonFlag, grid, say, show
from server.commands.options import HERE, Folder

if TYPE_CHECKING:
    from server.watching import Now, RunNow, SiteNow


def status(folder: Folder = HERE, as_json: JsonFlag = False) -> None:
    """Show hospitals, studies, who trained, who was refused and why, and what each has spent."""
    from server.federation_folder import Consortium
    from server.watching import look

    now = look(Consortium.open(folder))
    show(now, as_json, lambda: _tables(now))


def dashboard(
    folder: Folder = HERE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0: any that is free.")] = 0,
    serve: Annotated[bool, typer.Option("--serve", help="Serve, as `start` does; print no address.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Give the address of the live page, which opens once; without `start` the page is served by this command."""
    from server import dashboard as page
    from server.federation_folder import Consortium
    from server.watching import processes

    consortium = Consortium.open(folder)
    url = consortium.run / page.URL
    running = processes(consortium.run / "processes" / "status.json").get("dashboard") == "up"
    if running and not serve and url.exists():
        address = url.read_text(encoding="utf-8")
        show({"address": address}, as_json, lambda: f"Open once, on this machine: {address}")
        return
    with page.listening(port) as listener:
        app = page.make_app(consortium, listener.getsockname()[1])
        if not serve:
            address = url.read_text(encoding="utf-8")
            show({"address": address}, as_json, lambda: f"Open once, on this machine: {address}")
            say("Ctrl-C ends it.")
        page.serve(app, listener)


def _tables(now: Now) -> Table:
    columns = (
        "hospital",
        "standing",
        "last heard",
        "release",
        "clock",
        "free disk",
        "GPUs",
        "ε spent",
        "certificate",
    )
    parts = [grid(f"{now.federation}: hospitals", columns, map(_site, now.sites))]
    heads = ("study", "state", "rounds", "trained", "refused", "bytes up", "AUROC")
    parts.append(grid("Studies", heads, map(_run, now.runs)))
    if now.processes:
        parts.append(grid("Processes", ("process", "state"), now.processes.items()))
    whole = Table.grid()
    for part in parts:
        whole.add_row(part)
    return whole


def _site(site: SiteNow) -> tuple[str, ...]:
    heard = "never" if site.seen_s is None else f"{site.seen_s:.0f} s ago" + ("" if site.online else ", away")
    return (
        site.name,
        site.state,
        heard,
        site.version or "–",
        "–" if site.skew_s is None else f"{site.skew_s:+.1f} s",
        "–" if site.disk_free_gb is None else f"{site.disk_free_gb} GB or more",
        "–" if site.gpus is None else str(site.gpus),
        "–" if site.epsilon is None else f"{site.epsilon:.2f}",
        "–" if site.certificate_days is None else f"{site.certificate_days} days",
    )


def _run(run: RunNow) -> tuple[str, ...]:
    last = run.rounds[-1].trained if run.rounds else run.under_way
    refused = {**(run.rounds[-1].refused if run.rounds else {}), **run.refused}
    areas = [
        f"{site} {value:.3f}" for site, models in run.metrics.items() for value in models.values() if value
    ]
    return (
        run.name,
        run.state,
        str(run.round),
        ", ".join(last) or "–",
        ", ".join(f"{site}: {code}" for site, code in refused.items()) or "–",
        str(sum(one.bytes_up for one in run.rounds)),
        ", ".join(areas) or "–",
    )
