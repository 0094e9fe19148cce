"""Starting all of a hospital's processes, and keeping them running."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import say
from common.logs import configure


def start(
    site: SiteFolder = HERE,
    insecure_loopback: Annotated[
        str, typer.Option(help="host:port of a server on this machine without TLS; simulated sites only.")
    ] = "",
) -> None:
    """Start the site service and its connection to the federation; whatever ends is started again.

    Logs and status of each process are in processes/ in the site's state.
    """
    from client.deployment import Start, serve
    from client.site import load_site

    configure("INFO")
    loaded = load_site(site)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    say(f"{loaded.name} is started. Stop it with Ctrl-C.")
    serve(Start(loaded, insecure_loopback), lambda: not ended.is_set())
    say("Everything has stopped.")
