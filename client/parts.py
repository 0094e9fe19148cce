"""The processes of an enrolled hospital apart from each other, each under an account of its own.

serve      the site service: data, model, keys, ledger; no network
connect    tunnel and renewal: the one way out; keys of the connection, no data
courier    Flower's node and its executor: sees the tunnel and one socket, and nothing else

`consilium-site start` runs all of them as root; units and containers start them apart, without root (deploy/). The
courier's account can open nothing of the site, so `hand_over` puts what it needs into the courier's own folder:

<courier>/courier.json   where the tunnel and the socket are
<courier>/node.key       the node's key, as Flower wants it
<courier>/tunnel.crt     the tunnel's certificate, the only one the node believes
"""

from __future__ import annotations

import json
import os
import secrets
import socket as sockets
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from client import node, renewal, tunnel
from client.courier import courier_of, furnish
from client.deployment import CERTIFICATE, COURIER, ENVIRONMENT
from client.enrolment import kit_of
from client.keyfiles import NODE
from client.membership import FOLDER
from client.site import Site
from client.socket import healthy
from common import executor
from common.checkpoints import write_whole
from common.errors import FederationError, SettingsError, StorageError
from common.supervisor import STATUS, Program

NOTE: Final = "courier.json"
PROCESSES: Final = "processes"
PARTS: Final = ("service", "connect", "courier")
_HOST: Final = "127.0.0.1"
_CONNECT_S: Final = 2.0


@dataclass(frozen=True)
class Handed:
    """What the courier is told."""

    superlink: str
    """`host:port` of the tunnel."""
    socket: str
    """Of the site service, or of the door before it."""


def connecting(site: Site) -> list[Program]:
    """Tunnel and renewal of an enrolled hospital; what the courier needs is handed over first.

    Raises:
        FederationError: `not-enrolled`, or `certificate`.
        SettingsError: no stunnel on this machine, or the courier's account will not do.
        StorageError: the courier's folder cannot be written.
    """
    command = tunnel.command(site)
    hand_over(site)
    here = site.state / FOLDER
    ready = partial(_open, *_place(tunnel.address(site)))
    return [
        Program("tunnel", tuple(command), here, ready=ready, logs=tunnel.logs(site)),
        Program("renewal", tuple(renewal.command(site)), here),
    ]


def hand_over(site: Site) -> Path:
    """Give the courier what it needs, each file whole, readable by its group.

    Returns:
        The courier's folder.

    Raises:
        FederationError: `not-enrolled`.
        SettingsError, StorageError: as `connecting`.
    """
    if kit_of(site) is None or not (site.secrets / NODE).exists():
        raise FederationError(
            site.name, "it has not been enrolled", "Run `consilium-site enrol kit.zip`", code="not-enrolled"
        )
    named = courier_of(site)
    folder = (named.folder if named else site.state / "courier").resolve()
    socket = (named.socket if named else site.state / "service.sock").resolve()
    if named and os.geteuid() == 0:
        furnish(named)
    handed = Handed(tunnel.address(site), str(socket))
    contents = {
        NOTE: json.dumps(asdict(handed)).encode(),
        NODE: (site.secrets / NODE).read_bytes(),
        CERTIFICATE: tunnel.root_certificate(site).read_bytes(),
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            _give(folder / name, content, named.group if named else None)
    except OSError:
        raise StorageError(
            folder.name,
            "what the courier needs cannot be put there",
            "Let the service's account write it and be a member of the courier's group",
        ) from None
    return folder


def couriers(folder: Path) -> list[Program]:
    """Node and executor, from what was handed over; one fate, as `client.deployment` says.

    Args:
        folder: the courier's own.

    Raises:
        SettingsError: code `courier-empty` when nothing was handed over there.
        StorageError: the folder cannot be written.
    """
    handed = _handed(folder)
    port, secret = _free_port(), _secret(folder)
    environment = {**ENVIRONMENT, "FLWR_HOME": str(folder / "flower"), "PATH": _path(), "HOME": str(folder)}
    words = (
        *("--superlink", handed.superlink, "--root-certificates", str(folder / CERTIFICATE)),
        *("--auth-supernode-private-key", str(folder / NODE)),
        *("--isolation", "process", "--host", _HOST, "--port", str(port)),
        *("--superexec-auth-secret-file", str(secret)),
    )
    commands = {
        "node": node.command(Path(handed.socket), *words),
        "executor": executor.command(f"{_HOST}:{port}", str(secret), couriers=True),
    }
    needs = {"node": (), "executor": ("node",)}
    return [
        Program(name, command, folder, environment, group=COURIER, needs=needs[name])
        for name, command in commands.items()
    ]


def stamp(site: Site | None, folder: Path) -> str:
    """Changes when what the courier was handed is no longer what it needs; whoever runs it then starts it anew.

    Args:
        site: where the tunnel is; None beside the courier's folder alone.
        folder: the courier's.
    """
    ends = "" if site is None or tunnel.is_known_by(site, folder / CERTIFICATE) else "soon"
    told = []
    for name in (NOTE, NODE, CERTIFICATE):
        with suppress(OSError):
            told.append((folder / name).stat().st_mtime_ns)
    return f"{told}{ends}"


def alive(part: str, site: Site | None, folder: Path | None) -> bool:
    """Whether a part does its work; for health checks of containers and units.

    Args:
        part: of `PARTS`.
        site: of the service and the connection.
        folder: the courier's.
    """
    if part == COURIER:
        return folder is not None and _all_run(folder / PROCESSES, "node", "executor")
    if site is None:
        return False
    if part == "connect":
        return _open(*_place(tunnel.address(site))) and tunnel.runs(site)
    return healthy((site.state / "service.sock").resolve())


def _handed(folder: Path) -> Handed:
    try:
        return Handed(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise SettingsError(
            folder.name,
            "nothing was handed over to the courier here",
            "Enrol, then start `consilium-site connect`; both use the same folder",
            code="courier-empty",
        ) from None


def _give(path: Path, content: bytes, group: int | None) -> None:
    """Written anew only where it changed, so that `stamp` tells a change."""
    mode = 0o600 if group is None else 0o640
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    before = os.umask(0o077)
    try:
        write_whole(path.with_suffix(".new"), content)
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path.with_suffix(".new"), -1, group)
    path.with_suffix(".new").chmod(mode)
    path.with_suffix(".new").replace(path)


def _secret(folder: Path) -> Path:
    """What the executor shows to the node; made anew with each start, and the courier's own."""
    path = folder / "executor.secret"
    try:
        (folder / "flower").mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(secrets.token_hex(32).encode())
    except OSError:
        raise StorageError(path.name, "it cannot be written", "Check free space and rights") from None
    return path


def _all_run(processes: Path, *names: str) -> bool:
    try:
        programs = json.loads((processes / STATUS).read_text(encoding="utf-8"))["programs"]
        return all(_there(programs[name]["pid"]) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _there(pid: int) -> bool:
    """Whether a process is there, and is not one that ended and was not looked at yet."""
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _open(host: str, port: int) -> bool:
    try:
        with sockets.create_connection((host, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with sockets.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _path() -> str:
    """Flower's programs start each other by name, so theirs must be found where we were installed."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
