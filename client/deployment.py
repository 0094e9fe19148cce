"""The hospital's processes and how they are kept running: `consilium-site start`.

service    the site service: alone holds data, model and ledger; listens on a Unix socket
node       Flower's SuperNode: fetches what is asked and brings the answer; knows no data
executor   starts the courier, one short process for each question
tunnel     the one connection to the outside, and renewal, which keeps its certificate fresh; not in loopback mode

Node and executor share one fate: a courier that is killed ends its executor (`common.executor`), and a node that
waits for a courier that is gone would wait for a minute. Both are back within seconds, under a new number, and
the server asks again; the service gives the same bytes for the same round.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from client import node, renewal, tunnel
from client.courier import check_closed, courier_of, furnish
from client.keyfiles import NODE
from client.site import Site
from client.socket import healthy
from common import executor
from common.errors import ConsiliumError, PolicyRefused, StorageError
from common.logs import Log
from common.supervisor import Program, Supervisor

ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_ARENA_MAX": "2",
}
"""No telemetry, no update check, nothing installed; the way to our own processes never leads through the hospital's proxy,
which the tunnel alone speaks to. Of glibc: what a part of a model took is kept for the next part, up to 64 MiB."""
PROCESSES: Final = "processes"
"""In the site's state: logs and status of the processes."""
COURIER: Final = "courier"
CERTIFICATE: Final = "tunnel.crt"
"""The tunnel's, as the courier's node is handed it."""
SILENT_S: Final = 120.0
"""A site service that does not say for so long that it serves is ended and started anew, however busy its machine is."""
_HOST: Final = "127.0.0.1"
_SECRET_BYTES: Final = 32
_LOG: Final = Log("client.deployment")


@dataclass(frozen=True)
class Start:
    """What is started."""

    site: Site
    loopback: str = ""
    """`host:port` of a SuperLink on this machine, reached without TLS; simulated hospitals only."""
    port: int = 0
    """Of the node, for its executor, on loopback; 0: any that is free."""
    service: tuple[str, ...] = ()
    """The command of the site service; empty: that of `consilium-site serve`."""
    look_s: float = 20.0
    """How often it is looked whether the node believes the tunnel, and will for a while."""

    @property
    def folder(self) -> Path:
        """Logs and status."""
        return self.site.state / PROCESSES

    @property
    def socket(self) -> Path:
        """Of the site service."""
        return self.site.state / "service.sock"


def serve(start: Start, go_on: Callable[[], bool]) -> None:
    """Run everything until `go_on` says no; then stop everything.

    Raises:
        PolicyRefused: code `loopback` for a hospital that is not simulated and asks for no TLS.
        FederationError: code `running` when this site is started already.
    """
    kept = Supervisor(programs(start), start.folder)
    fresh = _Fresh(start, kept)

    def going() -> bool:
        fresh.look()
        return go_on()

    kept.run(going)


class _Fresh:
    """Has the tunnel and the node begin anew once the certificate between them ends soon, or the node's key is another.

    The node reads both when it starts and never again. What comes of a question that is under way is as after a crash:
    it is asked again.
    """

    def __init__(self, start: Start, kept: Supervisor) -> None:
        self._start = start
        self._kept = kept
        self._due = time.monotonic() + start.look_s

    def look(self) -> None:
        """Do what is due; what fails is tried again at the next look, and the log says so."""
        if self._start.loopback or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._start.look_s
        try:
            if self._known():
                return
            tunnel.write(self._start.site)
            _superlink(self._start, _courier(self._start))
        except (ConsiliumError, OSError) as error:
            _LOG.warning("node.stale", code=error.code if isinstance(error, ConsiliumError) else "storage")
            return
        _LOG.info("node.renewed")
        for name in ("tunnel", "node", "executor"):
            self._kept.restart(name)

    def _known(self) -> bool:
        site, folder = self._start.site, _courier(self._start).folder
        same_key = (folder / NODE).read_bytes() == (site.secrets / NODE).read_bytes()
        return same_key and tunnel.is_known_by(site, folder / CERTIFICATE)


def programs(start: Start) -> list[Program]:
    """Every process of the hospital's side.

    Raises:
        PolicyRefused: as `serve`.
        FederationError: code `not-enrolled` for a hospital that has no certificate yet.
        SettingsError: code `tunnel-missing` without stunnel.
    """
    if start.loopback and not start.site.simulated:
        raise PolicyRefused(
            f"site {start.site.name}",
            "it is not simulated, and without TLS nobody knows who asks",
            "Enrol it and start it without --insecure-loopback",
            code="loopback",
        )
    folder, courier = start.site.state, _courier(start)
    port = start.port or _free_port()
    address = f"{_HOST}:{port}"
    secret = _secret(courier)
    home = {**ENVIRONMENT, "FLWR_HOME": str(courier.folder / "flower"), "PATH": _path()}
    of_courier = partial(
        Program, folder=courier.folder, environment=home, group=COURIER, account=courier.account
    )
    return [
        *_outside(start),
        Program(
            "service",
            start.service or _service(start),
            folder,
            ready=lambda: healthy(start.socket),
            silent_s=SILENT_S,
            sees_patients=True,
        ),
        of_courier("node", _node(start, courier, port, secret), needs=("service",)),
        of_courier("executor", executor.command(address, str(secret), couriers=True), needs=("node",)),
    ]


def _outside(start: Start) -> list[Program]:
    """What speaks with the world."""
    if start.loopback:
        return []
    site = start.site
    return [
        Program("tunnel", tuple(tunnel.command(site)), site.state, logs=tunnel.logs(site)),
        Program("renewal", tuple(renewal.command(site)), site.state),
    ]


@dataclass(frozen=True)
class _Courier:
    """Where the courier's processes run, and what they open."""

    folder: Path
    socket: Path
    account: tuple[int, int] | None


def _courier(start: Start) -> _Courier:
    """Under the account that site.toml names, or under our own.

    Raises:
        SettingsError: `courier-user`, `courier-open`, `courier-root`.
    """
    named = courier_of(start.site)
    if named is None:
        own = start.site.state
        (own / "flower").mkdir(parents=True, exist_ok=True, mode=0o700)
        return _Courier(own.resolve(), start.socket.resolve(), None)
    check_closed(start.site, named)
    furnish(named)
    return _Courier(named.folder.resolve(), named.socket.resolve(), (named.user, named.group))


def _service(start: Start) -> tuple[str, ...]:
    site = str(start.site.folder.resolve())
    return (
        sys.executable,
        "-m",
        "client.cli",
        "serve",
        "--site",
        site,
        "--socket",
        str(start.socket.resolve()),
    )


def _node(start: Start, courier: _Courier, port: int, secret: Path) -> tuple[str, ...]:
    return node.command(
        courier.socket,
        *_superlink(start, courier),
        *("--isolation", "process", "--host", _HOST, "--port", str(port)),
        *("--superexec-auth-secret-file", str(secret)),
    )


def _superlink(start: Start, courier: _Courier) -> tuple[str, ...]:
    """Where the node finds its server, and how both know each other."""
    if start.loopback:
        return ("--insecure", "--superlink", start.loopback)
    site = start.site
    key = _handed(courier, NODE, (site.secrets / NODE).read_bytes())
    trusted = _handed(courier, CERTIFICATE, tunnel.root_certificate(site).read_bytes())
    return (
        *("--superlink", tunnel.address(site), "--root-certificates", str(trusted)),
        *("--auth-supernode-private-key", str(key)),
    )


def _secret(courier: _Courier) -> Path:
    """What the executor shows to the node; made anew with each start, and the courier's own."""
    return _handed(courier, "executor.secret", secrets.token_hex(_SECRET_BYTES).encode())


def _handed(courier: _Courier, name: str, content: bytes) -> Path:
    """A file that the courier alone may read."""
    path = courier.folder / name
    try:
        path.unlink(missing_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(content)
        if courier.account is not None:
            os.chown(path, *courier.account)
    except OSError:
        raise StorageError(path.name, "it cannot be written", "Check free space and rights") from None
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _path() -> str:
    """Flower's programs start each other by name, so theirs must be found where we were installed."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
