"""The consortium's processes and how they are kept running: `consilium-server start`.

superlink   Flower's server, on this machine's loopback only; its state in a database, apps run by an executor
executor    starts the ServerApp of a run; proves itself to the SuperLink with a secret
api, edge   what hospitals reach: enrolment and the one door; not in loopback mode
dashboard   the page for people and what machines ask, on loopback
tracker     tells MLflow and TensorBoard of every round, where server.toml names them

Beside them the queue of studies (`server.runs`). Whatever is killed is started again, and whatever was under way
goes on: the SuperLink's database and the runs' folders hold all that counts.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from common import executor
from common.supervisor import Program, Supervisor
from server import api, dashboard, edge, superlink
from server.federation_folder import Consortium
from server.launch import ENVIRONMENT
from server.runs import CONNECTION, Runs
from server.tracking import follow

PROCESSES: Final = "processes"
"""In the folder of what runs: logs and status of the processes."""
_POLL_S: Final = "0.2"
"""How often the executor asks for work; a ServerApp that waits a second to be started helps nobody."""
_HEALTH_S: Final = 1.0
_SILENT_S: Final = 120.0
"""A SuperLink that answers nobody for so long is ended and started anew."""
_ALLOCATOR: Final = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}
"""Of glibc: parts of a model go back to the system as soon as they are let go, and not when the heap's end does."""
_KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "67108864"}
"""And of the SuperLink, through whose hands all parts go: what is freed is kept for the next, up to 64 MiB."""


@dataclass(frozen=True)
class Start:
    """What is started, and how it is reached."""

    consortium: Consortium
    loopback: bool = False
    """Without TLS, edge and api, for simulated hospitals on this machine only."""

    @property
    def address(self) -> str:
        """Host and port of the SuperLink."""
        at = self.consortium.settings.superlink
        return f"{at.host}:{at.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of Flower's; the way to our own processes leads through no proxy."""
        at = self.consortium.settings.superlink.host
        path = {
            "FLWR_HOME": str(self.consortium.run / "flower"),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_S,
            **_ALLOCATOR,
        }
        direct = {"NO_PROXY": at, "no_proxy": at}
        return {**ENVIRONMENT, **path, **direct, "PATH": _path()}


def serve(start: Start, go_on: Callable[[], bool]) -> None:
    """Run everything until `go_on` says no; then stop everything.

    Raises:
        FederationError: code `running` when this federation is started already, `clock` when this machine's clock shows
            a time before the federation was made.
        SettingsError: no nginx, settings that it does not accept, or a tracker that is not installed.
    """
    if not start.loopback:
        start.consortium.check_clock()
    _connection(start)
    runs = Runs(start.consortium.folder, start.environment, lambda: healthy(start))

    def ended(name: str, _status: int) -> None:
        if name == "executor":
            runs.lost()

    kept = Supervisor(programs(start), start.consortium.run / PROCESSES, ended)

    def going() -> bool:
        runs.tick()
        return go_on()

    try:
        kept.run(going)
    finally:
        runs.close()


def programs(start: Start) -> list[Program]:
    """Every process of the consortium's side."""
    consortium = start.consortium
    run = consortium.run
    (run / "flower").mkdir(parents=True, exist_ok=True)
    found = [
        Program(
            "superlink",
            _superlink(start),
            run,
            {**start.environment, **_KEEP_MEMORY},
            ready=lambda: healthy(start),
            silent_s=_SILENT_S,
        ),
        Program(
            "executor",
            executor.command(start.address, str(consortium.executor_secret), _authority(start)),
            run,
            start.environment,
            needs=("superlink",),
        ),
    ]
    found.append(Program("dashboard", tuple(dashboard.command(consortium)), run))
    if follow.wanted(consortium):
        found.append(Program("tracker", tuple(follow.command(consortium)), run))
    if not start.loopback:
        served = api.environment(consortium)
        found.append(Program("api", tuple(api.command(consortium)), run, served))
        found.append(
            Program(
                "edge", tuple(edge.command(consortium)), run, needs=("superlink",), logs=edge.logs(consortium)
            )
        )
    return found


def healthy(start: Start) -> bool:
    """Whether the SuperLink answers."""
    scheme = "http" if start.loopback else "https"
    trusted = None if start.loopback else ssl.create_default_context(cafile=_authority(start))
    try:
        with urlopen(f"{scheme}://{start.address}/health", timeout=_HEALTH_S, context=trusted):  # noqa: S310
            return True
    except (URLError, OSError):
        return False


def _superlink(start: Start) -> tuple[str, ...]:
    consortium, at = start.consortium, start.consortium.settings.superlink
    pki = consortium.pki
    secured = (
        *("--ssl-certfile", str(pki / "superlink.crt"), "--ssl-keyfile", str(pki / "superlink.key")),
        *("--ssl-ca-certfile", str(pki / "ca.crt"), "--enable-supernode-auth"),
    )
    return (
        *superlink.command("--host", at.host, "--port", str(at.port)),
        *("--isolation", "process", "--database", str(consortium.run / "superlink.sqlite")),
        *("--superexec-auth-secret-file", str(consortium.executor_secret)),
        "--disable-runtime-dependency-installation",
        *(("--health-server-address", f"{at.host}:{at.health_port}") if at.health_port else ()),
        *(("--insecure",) if start.loopback else secured),
    )


def _connection(start: Start) -> None:
    """What `flwr` reads to find the SuperLink."""
    home = start.consortium.run / "flower"
    home.mkdir(parents=True, exist_ok=True)
    trust = "insecure = true" if start.loopback else f'root-certificates = "{_authority(start)}"'
    lines = ["[superlink]", f'default = "{CONNECTION}"', "", f"[superlink.{CONNECTION}]"]
    lines += [f'address = "{start.address}"', trust, ""]
    (home / "config.toml").write_text("\n".join(lines), encoding="utf-8")


def _authority(start: Start) -> str:
    return "" if start.loopback else str(start.consortium.pki / "ca.crt")


def _path() -> str:
    """Flower's programs start each other by name, so theirs must be found where we were installed."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
