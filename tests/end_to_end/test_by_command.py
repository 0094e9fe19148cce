"""A study by the commands that people type, through nginx and stunnel, with the courier under an account of its own.

Nothing is called here that a person or a supervisor would not call: release, studies, approve, submit, start.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import tomllib
from pathlib import Path

import pytest
import tomli_w

from client.privacy.ledger import Ledger
from client.site import Site, init_site, load_site
from common.audit import read
from common.plan import dump_plan
from server import edge
from server.journal import read_federation
from tests.accounts import NOBODY, installation_for, needs_root, open_place
from tests.client.made import fill
from tests.enrolled import OPEN
from tests.hostile import PLAN, secrets_of
from tests.world.consortium import BIN, World, make
from tests.world.processes import Processes, free_ports, listening, until

USER = pwd.getpwnam(NOBODY).pw_uid


@pytest.fixture
def world():
    """A started consortium and an enrolled hospital with patients that names an account for its courier."""
    needs_root()
    with open_place() as folder, Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.43")
        with (made.consortium.folder / "server.toml").open("a") as settings:
            settings.write('\n[tracking]\ntensorboard = "board"\n')
        processes.start(
            "server", [str(BIN / "consilium-server"), "start", "--folder", str(made.consortium.folder)]
        )
        until("the edge answers", lambda: edge.answers(made.consortium))
        until("the api answers", lambda: "ready" in ready(made))
        site = hospital(folder / "site")
        made.enrol(site)
        made.await_nodes("alpha")
        yield made, site, folder


def hospital(folder: Path) -> Site:
    """Forty patients with an image each; nothing of it is virtual but their pictures."""
    site = init_site(folder, "alpha", policy=OPEN)
    Ledger.create(site.ledger).close()
    (port,) = free_ports(1, in_a_row=2)
    path = folder / "site.toml"
    values = tomllib.loads(path.read_text())
    path.write_text(
        tomli_w.dumps({**values, "federation": {"tunnel_port": port}, "courier": {"user": NOBODY}})
    )
    site = load_site(folder)
    site.dicom.mkdir()
    fill(site, 40, 1, 2)
    return site


def ready(made: World) -> str:
    """What /readyz says; empty before the page is there."""
    try:
        place = (made.consortium.run / "dashboard.url").read_text().split("/")[2]
    except OSError:
        return ""
    done = subprocess.run(
        ["curl", "-s", f"http://{place}/readyz"], capture_output=True, text=True, check=False
    )
    return done.stdout.partition("\n")[0] if done.stdout == "ready\n" else ""


def typed(*words: object, answer: str = "") -> str:
    """What a command of ours says, asked back or not; it must succeed."""
    done = subprocess.run(
        [BIN / str(words[0]), *map(str, words[1:])],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        input=answer,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_from_its_release_to_its_result(world):
    made, site, folder = world
    consortium, plan = ("--folder", made.consortium.folder), folder / "plan.toml"
    here = ("--site", site.folder)
    plan.write_text(dump_plan(PLAN))
    release = json.loads(typed("consilium-server", "release", plan, *consortium, "--json"))["id"]

    assert release in typed("consilium-site", "studies", *here), "fetched through the edge"
    assert (site.state / "federation" / "releases" / f"{release}.zip").exists()
    typed("consilium-site", "approve", release, *here, answer="y\n")

    bin_ = installation_for(NOBODY, folder / "installed")
    start = [str(bin_ / "python3"), "-m", "client.cli", "start", "--site", str(site.folder)]
    made.processes.start("site", start, PATH=f"{bin_}:/usr/sbin:/usr/bin:/bin", OMP_NUM_THREADS="1")
    until("the node runs", lambda: pid(site, "executor"))
    users = {name: user_of(pid(site, name)) for name in ("service", "tunnel", "renewal", "node", "executor")}
    assert users == {
        **dict.fromkeys(("service", "tunnel", "renewal"), os.geteuid()),
        **dict.fromkeys(("node", "executor"), USER),
    }

    study = json.loads(typed("consilium-server", "submit", plan, *consortium, "--json"))["name"]
    record = made.consortium.folder / "runs" / study / "federation.json"
    apps: set[int] = set()

    def ended() -> bool:
        apps.update(user_of(app) for app in couriers(site))
        return record.exists() and read_federation(record).status != "running"

    until("the study ends", ended, 300)
    found = read_federation(record)
    assert (found.status, found.trained) == ("completed", ("alpha",)), (
        found.refused,
        made.processes.log("site"),
    )
    assert apps == {USER}, "whatever came over the wire ran under the courier's account alone"
    assert "completed" in typed("consilium-server", "runs", *consortium)
    told = made.consortium.folder / "board" / study
    until(
        "the tracker has told it all", lambda: len(list(told.glob("events.*"))) == PLAN.federation.rounds + 1
    )
    at = made.consortium.settings.superlink
    assert listening(at.host, at.health_port)
    assert not listening(made.host, at.health_port), "what has no TLS is on loopback alone"
    assert "is whole" in typed("consilium-site", "audit", "verify", "--ask", *here)
    assert [line["fields"]["kind"] for line in read(site.audit) if line["event"] == "egress.release"].count(
        "update"
    ) == 1
    courier = site.folder / "courier"
    own = [path for path in courier.rglob("*") if path.is_file() and "apps" not in path.parts]
    assert own
    assert not [(path, one[:8]) for path in own for one in secrets_of(site) if one in path.read_bytes()]


def pid(site: Site, name: str) -> int | None:
    try:
        told = json.loads((site.state / "processes" / "status.json").read_text())["programs"]
    except (OSError, ValueError):
        return None
    found: int | None = told[name]["pid"]
    return found


def user_of(process: int | None) -> int:
    try:
        return Path(f"/proc/{process}").stat().st_uid
    except FileNotFoundError:
        return USER  # gone meanwhile


def couriers(site: Site) -> list[int]:
    """ClientApps that this hospital's executor runs now, under whatever account."""
    parent, found = pid(site, "executor"), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
            if int(after[1]) == parent and b"flwr-clientapp" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found
