"""A hostile app bundle, approved by mistake, through Flower's own processes under the courier's account."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from flwr.cli.build import build_fab_from_files

from client.approvals import Approvals
from client.courier import courier_of, furnish
from client.node import command
from common import executor
from common.release import bytes_digest
from server.launch import _free_port
from server.release import app_folder
from tests.accounts import NOBODY, clean_environment, needs_root, open_place, python_for, start_service
from tests.flower import PATIENCE_S, Flower
from tests.hostile import SECRET, asked_of, judge, only_what_left, prepared, question

APP = Path(__file__).with_name("hostile_app.py")
ATTACK = Path(__file__).parents[1] / "client" / "hostile_courier.py"
SETTINGS = {
    "project": {"name": "evil", "version": "1.0.0", "license": "Apache-2.0"},
    "tool": {
        "flwr": {
            "app": {
                "publisher": "evil",
                "fab-include": ["evil/*.py", "evil/*.json"],
                "components": {"serverapp": "evil.app:server", "clientapp": "evil.app:client"},
                "config": {"out": ""},
            }
        }
    },
}


def _bundle(asked):
    files = {
        "pyproject.toml": tomli_w.dumps(SETTINGS).encode(),
        "evil/__init__.py": b"",
        "evil/app.py": APP.read_bytes(),
        "evil/attack.py": ATTACK.read_bytes(),
        "evil/asked.json": json.dumps(asked).encode(),
    }
    return build_fab_from_files(files)[0]


def _approved_by_mistake(site, bundle):
    """As if somebody had pinned its digest; the command itself would have refused: its code is not the installed code."""
    mistake = Approvals(site)
    [given] = mistake.all()
    mistake._write((given, replace(given, id="evil", bundle_digest=bytes_digest(bundle))))


@pytest.fixture
def world():
    needs_root()
    with open_place() as place:
        server, site = prepared(place)
        process = start_service(site, {"CANARY": SECRET})
        yield place, server, site, process
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _programs_of(account):
    """A folder with `flwr-clientapp` for an interpreter that the account may run."""
    python = python_for(account)

    def made(folder):
        folder.mkdir()
        program = folder / "flwr-clientapp"
        program.write_text(
            f"#!{python}\nfrom flwr.supernode.cli import flwr_clientapp\nraise SystemExit(flwr_clientapp())\n"
        )
        program.chmod(0o755)
        return python, folder

    return made


def _flower(place, site):
    """A SuperLink of the attacker's, and this hospital's node and executor under the courier's account."""
    courier, flower, port = courier_of(site), Flower(place / "flower"), _free_port()
    furnish(courier)
    python, programs = _programs_of(NOBODY)(place / "programs")
    secret = courier.folder / "executor.secret"
    secret.write_bytes(flower.secret.read_bytes())
    secret.chmod(0o600)
    os.chown(secret, courier.user, courier.group)
    home = {"HOME": str(courier.folder), "FLWR_HOME": str(courier.folder / "flower")}
    clean = clean_environment()
    environment = flower.environment | clean | home | {"PATH": f"{programs}:{clean['PATH']}"}
    words = ("--insecure", "--superlink", flower.address, "--isolation", "process", "--host", "127.0.0.1")
    words += ("--port", str(port), "--superexec-auth-secret-file", str(secret))
    asks = executor.command(f"127.0.0.1:{port}", str(secret), couriers=True)
    under = {"account": (courier.user, courier.group), "folder": courier.folder, "environment": environment}
    flower.add("node", (python, *command(courier.socket, *words)[1:]), "superlink", group="courier", **under)
    flower.add("courier", (python, *asks[1:]), "node", group="courier", **under)
    return flower


def test_a_hostile_bundle_through_flower_gets_nothing_but_what_leaves_anyway(world):
    place, server, site, process = world
    asked = asked_of(site, process, courier_of(site)) | {"question": question(server, site).hex()}
    bundle, out, flower = _bundle(asked), place / "found.json", _flower(place, site)
    _approved_by_mistake(site, bundle)
    with flower.running():
        flower.submit(app_folder(bundle, place / "app" / "evil"), out=out)
        until = time.monotonic() + PATIENCE_S
        while not out.exists():
            assert time.monotonic() < until, flower.said("node")[-1000:] + flower.said("courier")[-3000:]
            time.sleep(0.2)
    got = json.loads(out.read_text())
    assert "error" not in got, got
    told = got.pop("socket it was told")
    assert str(courier_of(site).socket) in told
    judge(got, site)
    only_what_left(site, bytes.fromhex(got["genuine question"]))
    assert process.poll() is None
