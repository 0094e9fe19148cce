"""A server's memory with nothing else in its process: the same server beside a stand-in for the SuperLink, on disk.

    python -m simulations.benchmarks.alone FOLDER SITES VALUES ROUNDS

The real rounds over the real grid and HTTP (`server.streaming`), with admission, journal and checkpoints; Flower's SuperLink is
`simulations.benchmarks.link` in a process of its own, hospitals work in processes of their own, one after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import Context, Message, RecordDict
from rich.table import Table

from common.cli import grid as printed
from common.code import code_digest
from common.errors import FederationError
from common.types import SiteName
from simulations.benchmarks.deployed import BYTES, MODELS_LIMIT, bench_plan, planted
from simulations.benchmarks.watch import MIB, Peak, memory
from simulations.faults.toy import ToyDuties

_TINY: Final = 1000
_POLL_S: Final = 0.01
_RUN: Final = 7
_OUT: Final = "out"


@dataclass(frozen=True)
class Alone:
    """What one study came to."""

    sites: int
    values: int
    server: Peak
    idle: Peak
    """With a tiny model and as many sites."""

    @property
    def models(self) -> float:
        """fp32 models above idle, resident."""
        return (self.server.total - self.idle.total) * MIB / (BYTES * self.values)

    @property
    def own_models(self) -> float:
        """The same without pages of files."""
        return (self.server.own - self.idle.own) * MIB / (BYTES * self.values)


def alone(sites: int, values: int, rounds: int) -> Alone:
    """Carry out a study and look at the server's memory.

    Raises:
        FederationError: code `bench` when it does not end well.
    """
    return Alone(sites, values, peak(sites, values, rounds), peak(sites, _TINY, rounds))


def alone_table(found: list[Alone]) -> Table:
    """Peak memory, a line for each number of sites."""
    head = (
        "sites",
        "numbers",
        "one model, MiB",
        "server, MiB",
        "idle",
        "models above",
        "without pages of files",
    )
    lines = [
        (
            *(str(f.sites), f"{f.values:,}", f"{BYTES * f.values / MIB:.0f}"),
            *(f"{f.server.total:.0f}", f"{f.idle.total:.0f}", f"{f.models:.2f}", f"{f.own_models:.2f}"),
        )
        for f in found
    ]
    return printed(
        f"Peak memory of a server by itself; at most {MODELS_LIMIT:g} models above idle", head, lines
    )


def peak(sites: int, values: int, rounds: int) -> Peak:
    """The most memory that such a server took; errors as `alone`."""
    with tempfile.TemporaryDirectory() as place:
        words = (
            sys.executable,
            "-m",
            "simulations.benchmarks.alone",
            place,
            *map(str, (sites, values, rounds)),
        )
        process = subprocess.Popen(words)  # noqa: S603 - a fixed command of our own, no shell
        most = Peak(0.0, 0.0)
        while process.poll() is None:
            try:
                now = memory(process.pid)
            except (OSError, KeyError):
                break
            most = Peak(max(most.total, now.total), max(most.own, now.own))
            time.sleep(_POLL_S)
        if process.wait() != 0:
            raise FederationError("study", "it did not end well", "Read what it said", code="bench")
        return most


def _names(sites: int) -> dict[str, int]:
    return {f"site-{number:02}": 100 for number in range(1, sites + 1)}


def _elsewhere(work: Callable[[], None]) -> None:
    """Do something whose memory is not to be seen here."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    """Carry the study out in this process."""
    from flwr.supercore.run import Run  # noqa: PLC0415 - the watching process needs none of these
    from flwr.supercore.task_identity import TaskIdentity  # noqa: PLC0415
    from flwr.superlink.grid.http_grid import HttpGrid  # noqa: PLC0415

    from client import direct  # noqa: PLC0415
    from client.app import app  # noqa: PLC0415
    from client.policy import Policy  # noqa: PLC0415
    from client.service import SiteService  # noqa: PLC0415
    from client.site import init_site  # noqa: PLC0415
    from server.rounds import run_federation  # noqa: PLC0415
    from server.start import Options  # noqa: PLC0415
    from server.streaming import streamed  # noqa: PLC0415
    from simulations.benchmarks.link import Link, served  # noqa: PLC0415

    folder = Path(sys.argv[1])
    sites, values, rounds = (int(word) for word in sys.argv[2:])
    names = _names(sites)
    plan = bench_plan(names, rounds, "alone")
    code = code_digest()
    _elsewhere(lambda: planted(plan, values, folder / _OUT, code))
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = _RUN, 0, 0
    homes: dict[int, Path] = {}
    for number, (name, bucket) in enumerate(names.items(), start=1):
        site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
        site.state.mkdir(exist_ok=True)
        direct.host(SiteService(site, ToyDuties(SiteName(name), site.state, bucket)))
        homes[number] = site.folder

    def answer(asked: Message) -> Message:
        node = asked.metadata.dst_node_id
        config: dict[str, Any] = {"site-folder": str(homes[node])}
        return app(asked, Context(_RUN, node, config, RecordDict(), {}))

    options = Options(consortium=folder / "consortium", nodes=len(homes))
    with served(Link(folder / "link", tuple(homes), answer)) as address:
        grid = HttpGrid(address, insecure=True, token="none")  # noqa: S106 - nobody asks for it
        grid.set_run(Run.create_empty(_RUN))
        run_federation(streamed(grid, folder / _OUT), plan, folder / _OUT, options)


if __name__ == "__main__":
    main()
