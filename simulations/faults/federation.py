"""A whole federation as real processes on this machine's loopback, to be hurt.

The consortium runs under the very supervisor of `consilium-server start`, each hospital under that of
`consilium-site start`; only what a hospital learns is a toy (`simulations.faults.toy`). All of them run a copy of the code
as it was when the federation was made, so that nobody's edits come between two processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from client.approvals import Approvals
from client.enrolment import enrol
from client.policy import Policy
from client.site import Site, init_site, load_site
from client.studies import receive
from common.audit import read
from common.errors import FederationError
from common.kit import Kit
from common.plan import Plan
from server.enrolment import admit, invite
from server.federation_folder import Consortium
from server.release import released
from server.runs import outcome, queue, studies
from simulations.enrolment import enrol as enrol_virtual
from simulations.faults.machine import bucket as put_bucket
from simulations.faults.machine import child, copied, free_ports, listening
from simulations.faults.toy import AT_WORK, PACE

_POLL_S: Final = 0.05
_START_S: Final = 120.0
_STOP_S: Final = 20.0
_APPS: Final = {"serverapp": "flwr-serverapp", "clientapp": "flwr-clientapp"}
SERVER: Final = "server"
T = TypeVar("T")
_SIDE: Final = (sys.executable, "-m", "simulations.faults.side")
"""Begins the command of either side."""


@dataclass
class Side:
    """The consortium or one hospital: a supervisor's process, and the status it writes."""

    name: str
    process: subprocess.Popen[bytes]
    processes: Path
    again: Callable[[], subprocess.Popen[bytes]]

    def pid(self, what: str) -> int | None:
        """The process id of a program, of an app that the executor runs now, or of the `supervisor` itself."""
        if what == "supervisor":
            return self.process.pid
        if what in _APPS:
            parent = self.pid("executor")
            return None if parent is None else child(parent, _APPS[what])
        with suppress(OSError, ValueError, KeyError):
            told = json.loads((self.processes / "status.json").read_text())["programs"][what]
            return None if told["pid"] is None else int(told["pid"])
        return None


@dataclass
class Federation:
    """A running federation of toy hospitals."""

    folder: Path
    consortium: Consortium
    environment: dict[str, str]
    sides: dict[str, Side] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    secured: bool = False
    """With edge, tunnels, certificates and approvals; else on plain loopback."""

    def submit(self, plan: Plan) -> str:
        """Queue a study; gives its name. In a secured federation it is released and approved everywhere first."""
        if self.secured:
            made = released(self.consortium, plan)
            parcel = self.consortium.book.release(made.id)
            for site in self.sites.values():
                Approvals(site).approve(receive(site, b"" if parcel is None else parcel.body))
        return queue(self.consortium.folder, plan).name

    def state(self, study: str) -> str:
        """How a study stands."""
        folder = self.consortium.folder
        return next((outcome(folder, one) for one in studies(folder) if one.name == study), "unknown")

    def attempts(self, study: str) -> int:
        """How often a study was handed to Flower so far."""
        return next((one.attempts for one in studies(self.consortium.folder) if one.name == study), 0)

    def home(self, study: str) -> Path:
        """The folder of a study's result."""
        return self.consortium.folder / "runs" / study

    def events(self, study: str) -> list[dict[str, Any]]:
        """The run's audit log so far."""
        with suppress(ValueError):
            return list(read(self.home(study) / "audit.jsonl"))
        return []

    def completed(self, study: str) -> int:
        """The last round that is complete."""
        done = [e["fields"]["round"] for e in self.events(study) if e["event"] == "round.completed"]
        return max(done, default=0)

    def kill(self, side: str, what: str) -> datetime:
        """End a process at once and without a word; gives when."""
        pid = self.until(lambda: self.sides[side].pid(what), f"{what} of {side}")
        at = datetime.now(UTC)
        os.kill(pid, signal.SIGKILL)
        if what == "supervisor":
            self.sides[side].process.wait()
            self.sides[side].process = self.sides[side].again()
        return at

    def gone(self, side: str) -> None:
        """End everything of one side; nobody starts it again."""
        left = self.sides.pop(side)
        left.process.send_signal(signal.SIGTERM)
        try:
            left.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            left.process.kill()
            left.process.wait()

    def at_work(self, site: str) -> bool:
        """Whether a hospital trains right now."""
        return (self.folder / site / "state" / AT_WORK).exists()

    def pace(self, site: str, seconds: float) -> None:
        """How long a hospital's training takes from now on."""
        (self.folder / site / "state" / PACE).write_text(str(seconds))

    def until(self, found: Callable[[], T | None], what: str, seconds: float = _START_S) -> T:
        """Wait until something is there.

        Raises:
            FederationError: code `timeout` when it does not come.
        """
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if time.monotonic() > deadline:
                raise FederationError(
                    what, f"it did not come in {seconds:g} s", "Read the logs", code="timeout"
                )
            time.sleep(_POLL_S)
        return value


@contextmanager
def federation(
    folder: Path, sites: Mapping[str, int], *, secured: bool = False, enrolled: bool = False
) -> Iterator[Federation]:
    """Start a consortium and these hospitals (name to public bucket); everything is ended again.

    Args:
        folder: empty; everything lies there afterwards.
        sites: name to public bucket.
        secured: real TLS on loopback, through nginx and stunnel, with enrolled hospitals.
        enrolled: a roster, and with it envelopes, without TLS too.

    Raises:
        FederationError: code `timeout` when it does not come up.
    """
    environment = {**os.environ, "PYTHONPATH": str(copied(folder / "code")), "OMP_NUM_THREADS": "1"}
    inner, api, outer = (free_ports(1)[0] for _ in range(3))
    home, at = folder / "consortium", f"127.0.0.1:{outer}"
    Consortium.init(home, "faults", [at])
    with (home / "server.toml").open("a") as settings:
        settings.write(
            f"\n[superlink]\nport = {inner}\nhealth_port = 0\n\n[api]\nport = {api}\n\n[dashboard]\nport = 0\n"
        )
        settings.write(f'\n[edge]\nlisten = ["{at}"]\nenrol_per_minute = 60000\n')
    made = Federation(folder, Consortium.open(home), environment, secured=secured)
    try:
        words = [] if secured else ["--loopback"]
        start_side(
            made, SERVER, (*_SIDE, str(made.consortium.folder), *words), made.consortium.run / "processes"
        )
        made.sites.update({name: _hospital(folder / name, bucket) for name, bucket in sites.items()})
        if secured:
            _enrolled(made, outer)
        elif enrolled:
            enrol_virtual(made.sites.values(), home)
        for name, site in made.sites.items():
            address = [] if secured else [f"127.0.0.1:{inner}"]
            start_side(made, name, (*_SIDE, str(site.folder), *address), site.state / "processes")
        yield made
    finally:
        for side in made.sides.values():
            side.process.send_signal(signal.SIGTERM)
        for name in list(made.sides):
            made.gone(name)


def _hospital(home: Path, bucket: int) -> Site:
    site = init_site(home, home.name, simulation_seed=1, policy=Policy(allow_non_private=True))
    put_bucket(home / "site.toml", bucket)
    with (home / "site.toml").open("a") as settings:
        settings.write(f"\n[federation]\ntunnel_port = {free_ports(2)[0]}\n")
    site.state.mkdir(exist_ok=True)
    return load_site(home)


def _enrolled(made: Federation, port: int) -> None:
    """All invited, asked, admitted, and the certificates fetched with one roster of all, as their people would."""
    made.until(lambda: listening(port), "the edge")
    kits: dict[str, Kit] = {}
    for site in made.sites.values():
        kits[site.name], code = invite(made.consortium, site.name)
        made.until(partial(_asked, site, kits[site.name], code), "the api")
    for site in made.sites.values():
        admit(made.consortium, site.name)
    for site in made.sites.values():
        enrol(site, kits[site.name], "")


def _asked(site: Site, kit: Kit, code: str) -> bool:
    """Whether the request was taken; behind the edge the api may still be starting."""
    try:
        enrol(site, kit, code)
    except FederationError:
        return False
    return True


def start_side(made: Federation, name: str, command: tuple[str, ...], processes: Path) -> None:
    """Start one side of a federation, and remember how, so that it can be started again.

    Args:
        made: the federation; the side is among `made.sides` afterwards.
        name: of the side.
        command: its program and words.
        processes: the folder of its supervisor's `status.json`.
    """
    log = made.folder / f"{name}.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            return subprocess.Popen(  # noqa: S603 - a fixed command of our own, no shell
                command,
                cwd=made.folder,
                env=made.environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    made.sides[name] = Side(name, start(), processes, start)
