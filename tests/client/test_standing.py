"""The hospital's half: enrolled with whom, asked last what, what left; told from its own files."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from client.cli import app
from client.health import coarse, health
from client.standing import standing
from client.vocabulary import may_be_said
from common.audit import AuditLog
from common.identity import fingerprint
from tests.enrolled import consortium, enrol, hospital


def test_a_hospital_that_is_not_enrolled_is_told_so(tmp_path):
    site = hospital(tmp_path)
    assert standing(site).federation == ""
    said = CliRunner().invoke(app, ["status", "--site", str(site.folder)], env={"COLUMNS": "200"}).output
    assert "not enrolled" in said


def test_an_enrolled_one_sees_with_whom_when_it_was_asked_and_what_left(tmp_path):
    site, server = hospital(tmp_path), consortium(tmp_path)
    enrol(server, site)
    log = AuditLog(site.audit)
    log.append("instruction", kind="survey", run="run-1", round=0)
    log.append("egress.release", kind="sitemetrics", run="run-1", round=0, bytes=900)
    log.append("instruction", kind="train", run="run-1", round=1)
    log.append("egress.release", kind="refusal", run="run-1", round=1, bytes=100)
    here = standing(site)
    assert (here.federation, here.roster, here.server) == ("lungs", 1, fingerprint(server.identity.public))
    assert (here.asked, here.run, here.round) == ("train", "run-1", 1)
    assert (here.messages, here.bytes) == (2, 1000)
    found = CliRunner().invoke(app, ["status", "--site", str(site.folder), "--json"]).output
    assert json.loads(found)["standing"]["federation"] == "lungs"


def test_a_pin_that_was_changed_is_named_and_not_believed(tmp_path):
    site, server = hospital(tmp_path), consortium(tmp_path)
    enrol(server, site)
    path = site.state / "federation" / "roster.json"
    path.write_text(path.read_text().replace("lungs", "lings"))
    assert standing(site).problem == "roster"


def test_what_a_hospital_says_of_its_machine_is_coarse(tmp_path):
    site = hospital(tmp_path)
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    told = health(site, tmp_path / "dev")
    assert told.gpus == 2
    assert may_be_said("version", told.version)
    assert [coarse(n) for n in (0, 1, 4, 7, 19, 99, 1234)] == [0, 1, 2, 5, 10, 50, 1000]
    assert told.disk_free_gb == coarse(told.disk_free_gb)


def test_a_release_s_name_is_one_or_does_not_leave():
    assert may_be_said("version", "0.1.0")
    assert may_be_said("version", "1.2.3rc1")
    assert not may_be_said("version", "0.1.0+anna.mueller")
    assert not may_be_said("by", "patient")
