"""A whole federation on this machine, as the world runs it: `consilium-sim federation`.

A consortium and its hospitals as real processes on loopback: nginx, SuperLink, api and executor on one side; stunnel, node,
executor, renewal and site service on each other. The hospitals are virtual and their images the demo's; enrolment, approval,
TLS, envelopes and the ledger are the real ones. Two rounds are trained. In the second one process is killed, and what
became of it is measured.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import tomli_w

from client.approvals import Approvals
from client.enrolment import enrol
from client.parts import PROCESSES
from client.site import Site, load_site
from client.studies import fetch, find
from common.errors import FederationError, InputError
from common.plan import Plan
from server import edge, enrolment, nodes
from server.federation_folder import SETTINGS, Consortium
from server.journal import COMPLETED, RUNNING, read_federation
from server.release import released
from server.runs import QUEUED, submit
from simulations.board import board
from simulations.crew import crew
from simulations.faults.federation import SERVER, Federation, start_side
from simulations.federation_told import Outcome, Say, Times
from simulations.prepare import passing, prepare
from simulations.scenario import HERE, load_scenario

HOSPITALS: Final = 3
PATIENTS: Final = 180
ROUNDS: Final = 2
KILLED: Final = "node"
"""What is killed: Flower's node of a hospital; its executor shares its fate."""
_HOST: Final = "127.0.0.1"
_ROUND_S: Final = 240.0
_STOP_S: Final = 30.0


def run(folder: Path, say: Say, hospitals: int = HOSPITALS, patients: int = PATIENTS) -> Outcome:
    """Make a federation, train, kill a process, and wait for the end.

    Args:
        folder: new or empty; everything lies there afterwards.
        say: told of each step.
        hospitals: how many.
        patients: of all of them together.

    Raises:
        InputError: the folder holds something already.
        SettingsError: nginx or stunnel are missing.
        FederationError: `timeout` when something did not come, with the logs left in the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(folder.name, "it holds something already", "Choose an empty folder")
    times = Times(say)
    with times.step("The demo's images are made and taken in"):
        names, plan = _hospitals(folder / "hospitals", hospitals, patients)
    with _started(folder) as made:
        consortium = made.consortium
        with times.step(
            f"The consortium of {made.folder.name} starts; the edge listens at {_edge(consortium)}"
        ):
            made.until(lambda: edge.answers(consortium), "the edge")
        with times.step(f"{', '.join(names)} enrol through the edge"):
            sites = _enrolled(consortium, [folder / "hospitals" / name for name in names])
        with times.step("The study is released, and approved at each hospital"):
            _approved(consortium, sites, plan)
        with times.step("The hospitals start"):
            for site in sites:
                start_side(made, site.name, _site_command(site), site.state / PROCESSES)
            made.until(lambda: all(made.sides[name].pid(KILLED) for name in names), "the nodes")
            made.until(lambda: len(nodes.registered(consortium)) >= len(sites), "their registration")
        study = submit(consortium, plan).name
        with times.step("Round 1"):
            _round(made, study, 1)
        with times.step("Round 2, with a process killed"):
            back_s, complete_s = _hurt(made, study, names[-1], say)
        with times.step("The final measurement"):
            _round(made, study, ROUNDS + 1)
        record = read_federation(made.home(study) / "federation.json")
    killed = f"{KILLED} of {names[-1]}"
    trained = tuple(sorted(record.trained))
    return Outcome(
        folder, study, trained, len(record.rounds), record.subset, killed, back_s, complete_s, times.seconds
    )


def _hospitals(folder: Path, hospitals: int, patients: int) -> tuple[tuple[str, ...], Plan]:
    """Virtual hospitals that have taken their images in, and the plan they will be asked to carry out."""
    scenario = load_scenario(HERE / "demo.toml", rounds=ROUNDS, hospitals=hospitals, patients=patients)
    with passing(folder), board() as bars, crew(bars) as hands:
        made = prepare(scenario, folder, hands)
    plan = scenario.plan_for("federated-dp")
    return made.names, replace(plan, federation=replace(plan.federation, sites=tuple(made.names)))


@contextmanager
def _started(folder: Path) -> Iterator[Federation]:
    """A running consortium; whatever runs at the end of the block is stopped."""
    home = folder / "consortium"
    outer, inner, api, health = _free_ports(4)
    Consortium.init(home, "demo", [f"{_HOST}:{outer}"])
    more = {
        "edge": {"listen": [f"{_HOST}:{outer}"]},
        "superlink": {"port": inner, "health_port": health},
        "api": {"port": api},
    }
    more["dashboard"] = {"port": 0}
    with (home / SETTINGS).open("a", encoding="utf-8") as settings:
        settings.write("\n" + tomli_w.dumps(more))
    consortium = Consortium.open(home)
    consortium.freshen()
    made = Federation(folder, consortium, {**os.environ, "OMP_NUM_THREADS": "1"})
    before = signal.signal(signal.SIGTERM, _asked_to_end)  # else what was started would be left behind
    try:
        command = (sys.executable, "-m", "server.cli", "start", "--folder", str(consortium.folder))
        start_side(made, SERVER, command, consortium.run / PROCESSES)
        yield made
    finally:
        signal.signal(signal.SIGTERM, before)
        for side in made.sides.values():
            side.process.send_signal(signal.SIGTERM)
        for side in made.sides.values():
            with suppress(subprocess.TimeoutExpired):
                side.process.wait(_STOP_S)
            side.process.kill()
            side.process.wait()


def _asked_to_end(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _enrolled(consortium: Consortium, folders: list[Path]) -> list[Site]:
    """Invited, asked, admitted, and asked again, as people on both sides would."""
    kits = {}
    for folder in folders:
        _settings(folder)
        site = load_site(folder)
        kit, code = enrolment.invite(consortium, site.name)
        enrol(site, kit, code)
        kits[folder] = kit
    for folder in folders:
        enrolment.admit(consortium, folder.name)
    for folder, kit in kits.items():
        enrol(load_site(folder), kit, "")
    return [load_site(folder) for folder in folders]


def _approved(consortium: Consortium, sites: list[Site], plan: Plan) -> None:
    release = released(consortium, plan)
    for site in sites:
        fetch(site)
        Approvals(site).approve(find(site, release.id))


def _hurt(made: Federation, study: str, site: str, say: Say) -> tuple[float, float]:
    """Kill a hospital's node in round 2; gives seconds until it was back and until the round was complete."""
    before = made.sides[site].pid(KILLED)
    at = made.kill(site, KILLED)
    say(f"  {KILLED} of {site} (process {before}) is killed")
    began = time.monotonic()
    made.until(lambda: made.sides[site].pid(KILLED) not in (None, before), f"the {KILLED} of {site}")
    back_s = time.monotonic() - began
    say(f"  it is back after {back_s:.1f} s, as process {made.sides[site].pid(KILLED)}")
    _round(made, study, ROUNDS)
    done = next(
        datetime.fromisoformat(event["time"])
        for event in made.events(study)
        if event["event"] == "round.completed" and event["fields"]["round"] == ROUNDS
    )
    return back_s, (done - at).total_seconds()


def _round(made: Federation, study: str, number: int) -> None:
    """Wait for the end of a round, or of the study; not for one that has ended by itself.

    Raises:
        FederationError: code `study-ended` with the word that the run ended with, or `timeout`.
    """

    def there() -> bool:
        state = made.state(study)
        if state.partition(",")[0] not in (QUEUED, RUNNING, COMPLETED):
            raise FederationError(
                study,
                f"it ended with {state} before round {number} was complete",
                f"Read the logs in {made.folder.name}",
                code="study-ended",
            )
        return made.completed(study) >= number or state.startswith(COMPLETED)

    made.until(there, f"round {number}", _ROUND_S)


def _site_command(site: Site) -> tuple[str, ...]:
    return (sys.executable, "-m", "client.cli", "start", "--site", str(site.folder.resolve()))


def _settings(folder: Path) -> None:
    """Every hospital's tunnel has its own two ports in a row, since all are on one machine."""
    port = next(port for port in iter(lambda: _free_ports(1)[0], None) if _is_free(port + 1))
    with (folder / "site.toml").open("a", encoding="utf-8") as settings:
        settings.write(f"\n[federation]\ntunnel_port = {port}\n")


def _edge(consortium: Consortium) -> str:
    return consortium.settings.edge.listen[0]


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((_HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError, OverflowError):
        probe.bind((_HOST, port))
        return True
    return False


def default_folder() -> Path:
    """A new folder in the system's place for temporary ones."""
    return Path(tempfile.mkdtemp(prefix="consilium-federation-"))
