"""The page on which the consortium watches its federation, and what machines ask: on this machine's loopback only.

/healthz   200 while this process answers
/readyz    200 when the book can be read, every process of the server is up and the SuperLink says that it serves;
           else 503 with their names
/metrics   Prometheus' text format
/<secret>/ the page, for whoever was given an address that opens once (`common.pages.door`)

The three have no secret: they name hospitals and studies to any account of this machine, and no patient exists here.
`<folder>/run/dashboard.url` (its owner alone can read it) has the next address that opens; each use makes a new one.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import ConsiliumError, InputError
from common.pages.door import Door
from common.pages.page import render
from server.exposition import CONTENT_TYPE, exposition
from server.federation_folder import Consortium
from server.health import serving
from server.watching import look, processes

HOST: Final = "127.0.0.1"
URL: Final = "dashboard.url"
_FOLDER: Final = Path(__file__).parent
_NAMES: Final = ("127.0.0.1", "localhost")
_BESIDE: Final = ("dashboard", "tracker")
"""Without which hospitals can be served all the same."""
_OPEN: Final = ("/healthz", "/readyz", "/metrics")


def command(consortium: Consortium) -> list[str]:
    """The process that serves it, as a part of `consilium-server start`."""
    program = [sys.executable, "-m", "server.cli", "dashboard", "--folder", str(consortium.folder), "--serve"]
    return [*program, "--port", str(consortium.settings.dashboard.port)]


def listening(port: int) -> socket.socket:
    """The socket of the page; 0: any port that is free.

    Raises:
        InputError: code `dashboard-port`.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError:
        raise InputError(
            f"port {port}",
            "another program listens there",
            "Set dashboard.port in server.toml",
            code="dashboard-port",
        ) from None


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve what `make_app` made until the process is told to end."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False, http="h11"
    )
    uvicorn.Server(config).run(sockets=[listener])


def make_app(consortium: Consortium, port: int) -> ASGIApp:
    """The page behind its door, and the open three beside it; the first address is in `URL` when this returns."""

    def told() -> None:
        _write_private(consortium.run / URL, door.renew())

    watch = _Watch(consortium)
    routes = [Route("/", watch.page), Route("/now", watch.now)]
    door = Door(Starlette(routes=routes, exception_handlers={Exception: _failed}), port, "dashboard", told)
    watch.nonce = door.nonce
    told()
    machines = [Route(path, getattr(watch, path[1:])) for path in _OPEN]
    opened = Starlette(routes=machines, exception_handlers={Exception: _failed})

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _OPEN:
            await door(scope, receive, send)
        elif Headers(scope=scope).get("host", "").rpartition(":")[0] not in _NAMES:
            # Another name that points here is another page's way to read us (DNS rebinding).
            await PlainTextResponse("This server has another name.", 421)(scope, receive, send)
        else:
            await opened(scope, receive, send)

    return both


class _Watch:
    """The answers."""

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium
        self.nonce = ""

    def page(self, _request: Request) -> Response:
        """The page itself; it fetches `now` again and again."""
        values: dict[str, object] = {"federation": self._consortium.name, "nonce": self.nonce}
        return HTMLResponse(render("dashboard.html", _FOLDER, values))

    def now(self, _request: Request) -> Response:
        """What the page shows."""
        return JSONResponse(asdict(look(self._consortium)))

    def healthz(self, _request: Request) -> Response:
        """Alive."""
        return PlainTextResponse("ok\n")

    def readyz(self, _request: Request) -> Response:
        """Whether hospitals can be served."""
        states = processes(self._consortium.run / "processes" / "status.json")
        away = sorted(name for name, state in states.items() if state != "up" and name not in _BESIDE)
        if states and "superlink" not in away and not serving(self._consortium.settings.superlink):
            away.append("superlink does not answer")
        try:
            self._consortium.book.sites()
        except ConsiliumError:
            away.append("book")
        if not states:
            away.append("nothing is started")
        return PlainTextResponse(
            "not ready: " + ", ".join(away) + "\n" if away else "ready\n", 503 if away else 200
        )

    def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        return PlainTextResponse(exposition(look(self._consortium)), headers={"content-type": CONTENT_TYPE})


def _failed(_request: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, ConsiliumError) else "internal"
    return JSONResponse({"code": code}, 500)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
