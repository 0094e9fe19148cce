"""What people type, in the order they type it: both command lines through a real edge."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from client.cli import app as site_app
from client.site import init_site
from server.cli import app as server_app
from tests.world.consortium import hospital, make
from tests.world.processes import Processes, until


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typed")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.51")
        made.start_api()
        made.start_edge()
        yield made


def server(world, *words: str, answer: str = "", status: int = 0) -> str:
    done = CliRunner().invoke(server_app, [*words, "--folder", str(world.consortium.folder)], input=answer)
    assert done.exit_code == status, done.output
    return done.output


def at(site, *words: str, answer: str = "", status: int = 0) -> str:
    done = CliRunner().invoke(site_app, [*words, "--site", str(site.folder)], input=answer)
    assert done.exit_code == status, done.output
    return done.output


def test_a_hospital_is_invited_enrols_is_admitted_and_is_revoked(world, tmp_path):
    site = hospital(tmp_path / "site", "st-anna")
    kit = tmp_path / "kit.zip"
    invited = json.loads(server(world, "invite", "st-anna", "--kit", str(kit), "--json"))
    asked = at(site, "enrol", str(kit), answer=invited["code"] + "\n")
    waits = at(site, "enrol", str(kit), "--again")
    assert "--again" in waits
    assert "waiting" in server(world, "list")
    server(world, "admit", "st-anna", "--fingerprint", "sha256:" + "0" * 64, status=2)
    server(world, "admit", "st-anna", answer="n\n", status=1)
    shown = json.loads(server(world, "list", "--json"))
    assert [(row["site"], row["state"]) for row in shown] == [("st-anna", "waiting")]
    assert shown[0]["fingerprint"] in asked
    assert "version 1" in server(world, "admit", "st-anna", "--fingerprint", shown[0]["fingerprint"])
    assert "is a member of lungs" in at(site, "enrol", str(kit), "--again")
    assert "lasts" in at(site, "renew")
    assert json.loads(at(site, "renew", "--now", "--json"))["renewed"]
    assert "version 1" in at(site, "roster")
    assert "certificate lasts" in server(world, "renew")
    assert "no member any more" in server(world, "revoke", "st-anna", "--yes")
    assert "certificate" in at(site, "renew", status=7)
    # The book refuses at once; the edge by itself as soon as it has read the list that the command told it of.
    until("the edge refuses by its list", lambda: "certificate revoked" in at(site, "renew", status=7))


def test_who_waits_is_a_member_soon_after_being_admitted(world, tmp_path):
    site = hospital(tmp_path / "site", "st-wait")
    kit, code = tmp_path / "kit.zip", tmp_path / "code"
    code.write_text(json.loads(server(world, "invite", "st-wait", "--kit", str(kit), "--json"))["code"])
    words = ["enrol", str(kit), "--code-file", str(code), "--wait", "300", "--site", str(site.folder)]
    child = world.processes.start("waits", [sys.executable, "-m", "client.cli", *words])

    def asked() -> bool:
        row = world.consortium.book.site("st-wait")
        return row is not None and row.state == "waiting"

    until("it asked", asked)
    server(world, "admit", "st-wait", "--json")
    assert child.wait(timeout=90) == 0
    assert "is a member of lungs" in world.processes.log("waits")


def test_a_newer_roster_is_shown_and_accepted_by_its_version(world, tmp_path):
    first, second = (hospital(tmp_path / name, name) for name in ("st-first", "st-second"))
    world.enrol(first)
    world.enrol(second)
    assert "new roster waits" in at(first, "renew")
    shown = json.loads(at(first, "roster", "--json"))
    assert shown["waiting"] == shown["version"] + 1
    assert [row["site"] for row in shown["members"] if row["change"] == "added"] == ["st-second"]
    at(first, "roster", "--accept", str(shown["version"]), status=7)
    at(first, "roster", "--accept", str(shown["waiting"]))
    assert json.loads(at(first, "roster", "--json"))["waiting"] is None


def test_mistakes_are_named_with_their_remedy_and_the_right_status(world, tmp_path):
    site = hospital(tmp_path / "site", "st-typo")
    assert "not there" in at(site, "enrol", str(tmp_path / "no.zip"), status=2)
    assert "enrolled" in at(init_site(tmp_path / "new", "st-new"), "renew", status=7)
    assert "enrolled" in at(site, "roster", status=7)
    assert "invited" in server(world, "revoke", "st-ghost", "--yes", status=2)
    assert "wait" in server(world, "admit", "st-ghost", "--json", status=2)
    assert "a-z" in server(world, "invite", "St. Anna", status=2)
    kit = tmp_path / "kit.zip"
    server(world, "invite", "st-other", "--kit", str(kit))
    assert "st-other" in at(site, "enrol", str(kit), answer="x\n", status=2)
    done = CliRunner().invoke(
        server_app, ["init", "lungs", "--address", "nowhere", "--folder", str(tmp_path / "f")]
    )
    assert (done.exit_code, "host:port" in done.output) == (2, True)
    done = CliRunner().invoke(
        server_app, ["init", "lungs", "--address", "a:1", "--folder", str(world.consortium.folder)]
    )
    assert done.exit_code == 2
    assert not (tmp_path / "f" / "consortium.key").exists()


def test_a_folder_that_the_edge_could_not_use_is_refused_before_anything_is_in_it(tmp_path):
    """And not when the consortium is started, with keys made and kits given out."""
    folder = tmp_path / "our consortium"
    done = CliRunner().invoke(server_app, ["init", "lungs", "--address", "a:1", "--folder", str(folder)])
    assert done.exit_code == 2
    assert "plain path" in " ".join(done.output.split())
    assert not folder.exists()
