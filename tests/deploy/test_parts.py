"""The very commands that containers and units run, as real processes over real TLS, each seeing only what it is given.

No engine is needed: the connection gets a folder in which nothing lies but what compose mounts for it, with the decoys of
deploy/ in place of the keys that name patients, and the courier a folder that only `connect` fills.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from flwr.supercore.constant import NodeStatus

from client.privacy.ledger import Ledger
from client.site import load_site
from common.kit import write_kit
from server import enrolment as made_enrolment
from server import nodes
from server.release import released
from tests.deploy.files import DEPLOY, compose
from tests.orthanc import program
from tests.toy import toy_plan
from tests.world.consortium import BIN, hospital, make
from tests.world.processes import Processes, until

PARTS = compose("site/compose.yaml")["services"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A consortium that runs, and an enrolled hospital in the two places that its parts see."""
    program("stunnel4", "stunnel4")
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "only root can give the socket to another account"
        )
    folder = tmp_path_factory.mktemp("parts")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.41")
        made.start_api()
        made.start_edge()
        made.start_superlink()
        site = hospital(folder / "site", "alpha")
        Ledger.create(site.ledger).close()
        made.enrol(site)
        made.await_nodes("alpha")
        yield made, folder, processes


@pytest.fixture(scope="module")
def running(world):
    """All three parts, started by the words of the compose file with its folders in place of the containers'."""
    _, folder, processes = world
    mounted = outside(folder)
    courier = folder / "courier"
    courier.mkdir(mode=0o700)
    places = {
        "CONSILIUM__COURIER__USER": PARTS["service"]["environment"]["CONSILIUM__COURIER__USER"],
        "CONSILIUM__COURIER__FOLDER": str(courier),
        "CONSILIUM__COURIER__SOCKET": str(folder / "door" / "service.sock"),
    }
    for name, at in (("service", folder / "site"), ("connect", mounted), ("courier", courier)):
        processes.start(name, words(PARTS[name]["command"], at), **places)
        until(f"{name} does its work", lambda name=name, at=at: alive(name, at, places))
    return places, mounted, courier


def words(command: list[str], at: Path) -> list[str]:
    """A compose file's command with the container's folder replaced by ours."""
    here = {"/srv/consilium": str(at), "/srv/courier": str(at)}
    return [str(BIN / "consilium-site"), *(here.get(word, word) for word in command)]


def alive(name: str, at: Path, places: dict[str, str]) -> bool:
    """What the health check of the compose file says."""
    command = words(PARTS[name]["healthcheck"]["test"][2:], at)
    done = subprocess.run(command, env={"PATH": str(BIN), **places}, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def outside(folder: Path) -> Path:
    """What compose mounts for the connection: no data, no ledger, and decoys for two keys."""
    site, mounted = folder / "site", folder / "mounted"
    for volume in PARTS["connect"]["volumes"]:
        if isinstance(volume, dict):
            part = volume["target"].removeprefix("/srv/consilium/")
            copy = shutil.copytree if (site / part).is_dir() else shutil.copy
            (mounted / part).parent.mkdir(parents=True, exist_ok=True)
            copy(site / part, mounted / part)
    for config in PARTS["connect"]["configs"]:
        shutil.copy(DEPLOY / "no.key", mounted / config["target"].removeprefix("/srv/consilium/"))
    assert not (mounted / "data").exists()
    assert not (mounted / "state" / "ledger.sqlite").exists()
    return mounted


def test_the_node_reaches_the_federation_through_the_parts(world, running) -> None:
    made, _, _ = world

    def online() -> bool:
        with nodes._client(made.consortium) as client:
            return [node.status for node in nodes._present(client).values()] == [NodeStatus.ONLINE]

    until("the node is online", online)


def test_the_courier_was_given_three_files_and_no_other_key(world, running) -> None:
    _, folder, _ = world
    _, mounted, courier = running
    handed = {path.name for path in courier.iterdir() if path.is_file()}
    made_there = {"executor.secret", "node.number"}
    assert handed - made_there == {"courier.json", "node.key", "tunnel.crt"}
    note = json.loads((courier / "courier.json").read_text())
    assert note["superlink"].startswith("127.0.0.1:")
    secret = [
        path.read_bytes() for path in (folder / "site" / "secrets").iterdir() if path.name != "node.key"
    ]
    given = b"".join(path.read_bytes() for path in courier.iterdir() if path.is_file())
    assert not [content for content in secret if content in given]
    assert load_site(mounted).pseudonym_key != load_site(folder / "site").pseudonym_key


def test_what_needs_the_network_works_where_nothing_but_the_connection_s_folders_can_be_written(
    world, tmp_path
) -> None:
    """`docker compose run --rm connect …`: enrol, studies, renew and roster, with data, ledger and log out of sight."""
    made, _, _ = world
    folder = tmp_path / "new"
    site = hospital(folder / "site", "beta")
    kit, code = made.invite("beta")
    (site.state / "federation").mkdir(parents=True)
    write_kit(kit, site.state / "federation" / "kit.zip")
    mounted = outside(folder)
    before = there(mounted)
    released(made.consortium, toy_plan())

    def typed(*more: str, answer: str = "") -> str:
        command = [
            str(BIN / "consilium-site"),
            *(word.replace("KIT", str(mounted / "state/federation/kit.zip")) for word in more),
        ]
        done = subprocess.run(
            [*command, "--site", str(mounted)], capture_output=True, text=True, check=False, input=answer
        )
        assert done.returncode == 0, (more, done.stderr)
        return done.stdout

    typed("enrol", "KIT", answer=f"{code}\n")
    made_enrolment.admit(made.consortium, "beta")
    typed("enrol", "KIT", "--again")
    assert "toy-1-" in typed("studies")
    typed("renew", "--now")
    typed("roster")
    allowed = ("state/federation/", "secrets/")
    assert [path for path in there(mounted) - before if not path.startswith(allowed)] == []


def there(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_part_that_is_not_there_is_not_alive(world, running, tmp_path: Path) -> None:
    places, _, _ = running
    assert not alive("courier", tmp_path, places)


def test_the_server_says_that_it_is_alive_and_that_it_is_not(world, tmp_path: Path) -> None:
    made, _, _ = world
    command = [str(BIN / "consilium-server"), "alive", "--folder", str(made.consortium.folder)]
    assert subprocess.run(command, check=False).returncode == 0
    moved = subprocess.run(
        command,
        env={"PATH": str(BIN), "CONSILIUM__EDGE__LISTEN": '["127.0.0.42:9"]'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert moved.returncode == 1
    assert "edge" in moved.stderr


def test_a_courier_without_its_things_says_whom_to_ask(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "consilium-site", "courier", "--folder", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "connect" in done.stderr
