"""Making a site and starting its service."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, say, show
from common.errors import ConsiliumError
from common.logs import Log, configure, unforeseen

if TYPE_CHECKING:
    from client.site import Site

_LOG = Log("client.serve")


@dataclass(frozen=True)
class Made:
    """What `init` made; the keys are named, never shown."""

    site: str
    settings: str
    keys: tuple[str, ...]
    next: str


def init(
    name: Annotated[str, typer.Argument(help="Short name in the federation: a-z, 0-9, hyphens.")],
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Make a new site: settings, keys, and an empty place for data."""
    from client.privacy.ledger import Ledger
    from client.site import init_site

    made = init_site(site, name)
    if not made.ledger.exists():
        Ledger.create(made.ledger).close()  # once, on purpose: a ledger that is missing later is refused
    result = Made(
        made.name,
        "site.toml",
        ("secrets/pseudonym.key", "secrets/spend.key"),
        "Back up secrets/pseudonym.key and secrets/spend.key now, apart from the data: "
        "without them no patient can be recognised again, and the site does not start.",
    )
    show(result, as_json, lambda: f"Site {made.name} is ready in {site.resolve()}.\n{result.next}")


def serve(
    site: SiteFolder = HERE,
    socket: Annotated[
        Path | None, typer.Option(help="The Unix socket; service.sock in the site's state when not given.")
    ] = None,
) -> None:
    """Start the site service, which alone holds data, model and ledger, on its Unix socket.

    It ends with status 75 when its work hangs for good; let a supervisor start it anew.
    """
    configure("INFO")  # nobody waits at the terminal: what happens is told as it happens
    with _why_it_ends():
        _serve(site, socket)


@contextmanager
def _why_it_ends() -> Iterator[None]:
    """Tell the log by a code what ended the service: of its other words a supervisor keeps none."""
    try:
        yield
    except ConsiliumError as error:
        _LOG.error("serve.failed", code=error.code)
        raise
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        if not isinstance(error, typer.Exit):
            unforeseen(_LOG, "serve.failed", error)
        raise


def _serve(site: Path, socket: Path | None) -> None:
    from client.courier import check_closed, courier_of
    from client.gate import Gate
    from client.service import SiteService
    from client.site import load_site
    from client.socket import serve as serve_socket
    from common.audit import AuditLog

    loaded = load_site(site)
    _check_ledger(loaded)
    AuditLog(loaded.audit).forget(loaded.policy.audit_years)
    path = socket or loaded.state / "service.sock"
    courier = courier_of(loaded)
    if courier is not None:
        check_closed(loaded, courier)
    gate = None
    server = serve_socket(SiteService(loaded, on_hung=_start_anew), path)
    if courier is None and not loaded.simulated:
        say(
            "warning: courier and service share an account; name one for the courier: courier.user in site.toml."
        )
    if courier is not None:
        gate = Gate(courier.socket, path, frozenset((0, os.geteuid(), courier.user)), courier.group)
    say(
        f"The service of {loaded.name} listens on {courier.socket if courier else path}. Stop it with Ctrl-C."
    )
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=None))
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=None).wait()
    if gate is not None:
        gate.stop()
    say("The service has stopped.")


def _start_anew() -> None:
    """End this process at once: what is charged and what was sent are on disk, and a thread cannot be ended."""
    say("The work hangs. The service ends with status 75; start it anew.")
    os._exit(os.EX_TEMPFAIL)


def _check_ledger(site: Site) -> None:
    """Start only with a ledger that is whole and contains what the consortium countersigned."""
    from client.privacy.desk import Desk

    if site.simulated and not site.ledger.exists():
        return
    with Desk(site).open():
        pass
