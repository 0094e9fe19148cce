"""Many hospitals on one machine: their processes forked from one that has imported what all of them need.

    python -m simulations.benchmarks.crowd FOLDER SUPERLINK_ADDRESS SITES

Every hospital has the three processes that it has in the world, site service, SuperNode and executor, with the commands, folders
and environment that `client.deployment` gives them; they speak with each other and with the SuperLink over real connections, and
couriers are forked for each question as ever. What is spared is three interpreters a hospital that import the same modules (a
second of a processor and 250 MiB), and the supervisor above them: what ends here ends the whole, so nothing fails unseen.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from client import deployment
from client.policy import Policy
from client.site import init_site, load_site
from common import executor
from common.errors import FederationError
from common.logs import configure
from common.sessions import die_with_parent
from common.supervisor import STATUS, Program
from simulations.faults import service
from simulations.faults.machine import bucket

MODULE: Final = "simulations.benchmarks.crowd"
PATIENTS: Final = 100
"""Of each hospital."""
_WARM: Final = (
    "common.shortway",
    "client.socket",
    "client.node",
    "flwr.supernode.cli.flower_supernode",
    "flwr.supernode.main",
    "flwr.supernode.start_client_internal",
    "flwr.supernode.fleet_http_connection",
    "flwr.supercore.cli.flower_superexec",
    "flwr.supernode.runtime.run_clientapp",
    "flwr.cli.install",
    "uvicorn.protocols.http.auto",
    "uvicorn.lifespan.on",
    "simulations.faults.service",
    *executor.BEFOREHAND,
)
_APART_S: Final = 0.3
"""Between two hospitals: fifty that come at once would all wait for each other."""
_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Child:
    """One process of a hospital."""

    site: str
    name: str
    pid: int


def command(folder: Path, address: str, sites: int) -> tuple[str, ...]:
    """The command line of a crowd.

    Args:
        folder: where each hospital's folder is made.
        address: `host:port` of the SuperLink.
        sites: how many hospitals.
    """
    return (sys.executable, "-m", MODULE, str(folder), address, str(sites))


def names(sites: int) -> list[str]:
    """What so many hospitals are called."""
    return [f"site-{number:02}" for number in range(1, sites + 1)]


def programs(folder: Path, address: str) -> list[Program]:
    """A hospital's three processes as it has them in the world; the hospital is made where it is not there.

    Args:
        folder: of the hospital.
        address: `host:port` of the SuperLink.
    """
    if not (folder / "site.toml").exists():
        init_site(folder, folder.name, simulation_seed=1, policy=Policy(allow_non_private=True))
        bucket(folder / "site.toml", PATIENTS)
    site = load_site(folder)
    site.state.mkdir(exist_ok=True)
    socket = deployment.Start(site, address).socket.resolve()
    served = service.command(folder.resolve(), socket)
    return deployment.programs(deployment.Start(site, address, service=served))


def forked(program: Program, log: Path) -> int:
    """Fork a process that does what this program's command would, `python -m MODULE WORDS`; gives its number.

    Raises:
        FederationError: code `crowd` for any other command, or where this process has other threads, which a fork would lose.
    """
    if program.command[:2] != (sys.executable, "-m") or threading.active_count() > 1:
        raise FederationError(program.name, "it cannot be forked", "Start it as a process", code="crowd")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(program, log)
    return child


def _become(program: Program, log: Path) -> NoReturn:
    status = 1
    try:
        os.setsid()
        die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(said, stream)
        os.environ |= program.environment
        os.chdir(program.folder)
        module, sys.argv = program.command[2], list(program.command[2:])
        importlib.import_module("random").seed()
        importlib.import_module(module).main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - nothing may go on in the child but its end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def warm_up() -> None:
    """Import what the processes need, and let the collector of garbage leave it alone, so that its pages stay shared."""
    os.environ |= deployment.ENVIRONMENT
    executor.keep_to_ourselves()
    for name in _WARM:
        importlib.import_module(name)
    importlib.import_module("client.node").moved()
    gc.collect()
    gc.freeze()


def begun(folder: Path, address: str, sites: int) -> Iterator[Child]:
    """Start hospital after hospital."""
    for name in names(sites):
        home = folder / name
        for program in programs(home, address):
            yield Child(name, program.name, forked(program, home / f"{program.name}.log"))


def main() -> None:
    """Run the hospitals until told to stop, or until a process of theirs ends; the status file says which."""
    configure("INFO")
    folder, address, sites = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    warm_up()
    there: dict[int, Child] = {}
    try:
        for child in begun(folder, address, sites):
            there[child.pid] = child
            if ended.wait(_APART_S / 3):
                return
        told(folder, there, "")
        while not ended.wait(_POLL_S):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in there:
                lost = there.pop(pid)
                told(
                    folder,
                    there,
                    f"{lost.name} of {lost.site} ended with {os.waitstatus_to_exitcode(status)}",
                )
    finally:
        _stop(there)


def told(folder: Path, there: dict[int, Child], lost: str) -> None:
    """Write down who is there and what was lost, whole or not at all."""
    path = folder / STATUS
    children = [[child.site, child.name, child.pid] for child in there.values()]
    path.with_suffix(".tmp").write_text(json.dumps({"children": children, "lost": lost}), encoding="utf-8")
    path.with_suffix(".tmp").replace(path)


def lost(folder: Path) -> str | None:
    """What ended that should not have; empty where nothing did, None while hospitals are still being started."""
    try:
        return str(json.loads((folder / STATUS).read_text(encoding="utf-8"))["lost"])
    except FileNotFoundError:
        return None


def children(folder: Path) -> list[Child]:
    """Who is there.

    Raises:
        FileNotFoundError: hospitals are still being started.
    """
    said = json.loads((folder / STATUS).read_text(encoding="utf-8"))["children"]
    return [Child(*child) for child in said]


def _stop(there: dict[int, Child]) -> None:
    for pid in there:
        with suppress(ProcessLookupError):  # not the leader of its group yet; it ends with us in any case
            os.killpg(pid, signal.SIGKILL)
    for pid in there:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
