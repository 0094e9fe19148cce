"""Starting a hospital's processes, all of them or one part, and keeping them running."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import say
from common.logs import configure

if TYPE_CHECKING:
    from common.supervisor import Program

_LOOK_S = 20.0
"""How often it is looked whether certificates or keys of the node were replaced."""
_PARTS = "service, connect or courier"
CourierFolder = Annotated[
    Path, typer.Option("--folder", help="The courier's own folder, where `connect` put its things.")
]


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

    loaded, ended = load_site(site), _until_told()
    say(f"{loaded.name} is started. Stop it with Ctrl-C.")
    serve(Start(loaded, insecure_loopback), lambda: not ended.is_set())
    say("Everything has stopped.")


def connect(site: SiteFolder = HERE) -> None:
    """Start the tunnel to the federation and the renewal of its certificate alone; needs no data.

    The courier's things are put into its folder first. It ends with status 75 when the tunnel's own certificate
    ends soon; let a supervisor start it anew.
    """
    from client import parts
    from client.courier import courier_of
    from client.membership import FOLDER
    from client.site import load_site

    loaded, ended = load_site(site), _until_told()
    programs = parts.connecting(loaded)
    named = courier_of(loaded)
    folder = named.folder if named else loaded.state / "courier"
    say(f"The connection of {loaded.name} is started. Stop it with Ctrl-C.")
    processes = loaded.state / FOLDER / parts.PROCESSES
    _keep(programs, processes, ended, lambda: parts.stamp(loaded, folder))


def courier(folder: CourierFolder) -> None:
    """Start Flower's node and its executor alone, under this account; needs nothing of the site but one socket.

    It ends with status 75 when `connect` replaced key or certificate; let a supervisor start it anew.
    """
    from client import parts

    ended, at = _until_told(), folder.resolve()
    programs = parts.couriers(at)
    say("The courier is started. Stop it with Ctrl-C.")
    _keep(programs, at / parts.PROCESSES, ended, lambda: parts.stamp(None, at))


def alive(
    part: Annotated[str, typer.Argument(help=f"Which: {_PARTS}.")],
    site: SiteFolder = HERE,
    folder: Annotated[Path | None, typer.Option(help="The courier's own folder.")] = None,
) -> None:
    """Say by the exit status whether a part does its work: 0 yes, 1 no; for health checks."""
    from client import parts
    from client.site import load_site
    from common.errors import InputError

    if part not in parts.PARTS:
        raise InputError(part, "there is no such part", f"Give {_PARTS}")
    if not parts.alive(part, None if part == "courier" else load_site(site), folder):
        say(f"{part} does not do its work.")
        raise typer.Exit(1)


def _until_told() -> threading.Event:
    configure("INFO")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended


def _keep(programs: list[Program], processes: Path, ended: threading.Event, stamp: Callable[[], str]) -> None:
    """Run until told to stop, or until what was handed to the courier is another."""
    from common.supervisor import Supervisor

    first, due, changed = stamp(), time.monotonic() + _LOOK_S, False

    def go_on() -> bool:
        nonlocal due, changed
        if time.monotonic() >= due:
            due = time.monotonic() + _LOOK_S
            changed = stamp() != first
        return not ended.is_set() and not changed

    Supervisor(programs, processes).run(go_on)
    if changed:
        say("The node's key or certificate was replaced. Start anew.")
        raise typer.Exit(os.EX_TEMPFAIL)
    say("Everything has stopped.")
