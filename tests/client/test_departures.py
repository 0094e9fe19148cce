"""`consilium-site egress`: hospital IT reads what left, and recognises a message."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.departures import WORDS, account, recognise
from client.membership import identity_of, pin
from client.privacy.desk import Asked, Desk
from client.privacy.heads import NAME
from client.service import SiteService
from common import plan as plans
from common import wire
from common.audit import AuditLog
from common.code import code_digest
from common.envelope import Envelope, nonce, now_ms, seal
from common.identity import Identity, fingerprint
from common.messages import Instruction, Kind
from common.roster import Member, sign_roster
from server.heads import HeadBook
from tests.client.crash_rounds import COHORT, EVENT, LIMITS, release_of
from tests.toy import toy_plan, toy_service

PLAN = toy_plan()


@pytest.fixture
def left(tmp_path):
    """A hospital that let five messages of two runs out, and those messages."""
    service = toy_service(tmp_path, "alpha")
    asks = [(Kind.SURVEY, "run-1", 0), (Kind.TRAIN, "run-1", 1), (Kind.EVALUATE, "run-1", 1)]
    asks += [(Kind.SURVEY, "run-2", 0), (Kind.TRAIN, "run-2", 0)]
    blobs = [
        service.answer(
            wire.pack(Instruction(kind, run, n, plans.dump_plan(PLAN), PLAN.digest, code_digest(), {}))
        )
        for kind, run, n in asks
    ]
    return service.site, blobs


def _run(*words):
    return CliRunner().invoke(app, ["egress", *map(str, words)])


def test_everything_that_left_is_told_in_order_with_its_hash(left):
    site, blobs = left
    told = account(site)
    assert [one.bytes for one in told.departures] == [len(blob) for blob in blobs]
    assert [one.kind for one in told.departures] == [
        "sitemetrics",
        "update",
        "sitemetrics",
        "sitemetrics",
        "refusal",
    ]
    assert told.bytes == sum(map(len, blobs))
    assert told.runs == ("run-1", "run-2")
    assert {one.plan for one in told.departures} == {PLAN.digest, ""}
    assert told.departures[-1].code == "round"
    assert all(one.what in WORDS.values() for one in told.departures)


def test_to_whom_it_went_is_told_by_the_key_that_is_pinned_and_the_study(left, tmp_path):
    """Before a server has countersigned, nobody knows who asks; a refusal may come before a plan was read."""
    site, _ = left
    assert {one.to for one in account(site).departures} == {""}
    assert [one.study for one in account(site).departures] == [*["toy"] * 4, ""]
    assert "no key pinned" in _run("show", "--site", site.folder).output
    server, desk = HeadBook(tmp_path / "consortium"), Desk(site)
    server.shown(site.name, desk.head())
    word = server.countersign(site.name, "run-a", 9)
    desk.send(Asked(release_of(9), word), lambda pay: (pay(COHORT, EVENT, LIMITS), b"update")[1])
    SiteService(site).answer(b"junk")
    told = account(site).departures[-1]
    assert (told.to, told.study) == (server.fingerprint, "")
    assert json.loads(_run("show", "--site", site.folder, "--json").output)["departures"][-1]["to"] == told.to
    (site.state / NAME).write_text("{")
    SiteService(site).answer(b"junk")
    assert account(site).departures[-1].to == "", "a file that was changed names nobody"


def test_an_enrolled_hospital_knows_from_the_first_message_to_whom_it_answers(left, tmp_path):
    site, _ = left
    server = Identity.make(tmp_path / "server.key")
    members = (Member(site.name, identity_of(site).public),)
    pin(site, sign_roster(server, "toy", 1, members), server.public)
    SiteService(site).answer(b"junk")
    assert account(site).departures[-1].to == fingerprint(server.public)


def test_the_command_tells_it_and_a_run_can_be_picked(left):
    site, _ = left
    said = _run("show", "--site", site.folder)
    assert said.exit_code == 0
    for word in (
        "protected update",
        "run-2",
        "round",
        "sha256:",
        "1 refusal, 3 sitemetrics, 1 update",
        "toy",
    ):
        assert word in said.output
    one = json.loads(_run("show", "--site", site.folder, "--run", "run-2", "--json").output)
    assert [each["run"] for each in one["departures"]] == ["run-2", "run-2"]
    assert "Nothing has left" in _run("show", "--site", site.folder, "--run", "run-9").output


def test_a_saved_message_is_recognised_and_a_changed_one_is_not(left, tmp_path):
    site, blobs = left
    path = tmp_path / "saved.bin"
    path.write_bytes(blobs[1])
    said = _run("verify", path, "--site", site.folder)
    assert said.exit_code == 0
    assert "left alpha" in said.output
    path.write_bytes(blobs[1] + b"\0")
    said = _run("verify", path, "--site", site.folder)
    assert said.exit_code == 2
    assert "did not leave" in said.output
    assert _run("verify", tmp_path / "nothing", "--site", site.folder).exit_code == 2


def test_a_message_captured_in_its_envelope_is_recognised(left, tmp_path):
    site, blobs = left
    letter = Envelope("alpha@toy", "@toy", "run-1", 1, nonce(), now_ms())
    path = tmp_path / "captured.bin"
    path.write_bytes(seal(blobs[1], Identity.make(tmp_path / "any.key"), letter))
    assert [one.kind for one in recognise(site, path)] == ["update"]
    path.write_bytes(path.read_bytes()[:40])
    assert _run("verify", path, "--site", site.folder).exit_code != 0


def test_nothing_is_told_from_a_log_that_was_edited(left):
    site, _ = left
    site.audit.write_bytes(site.audit.read_bytes().replace(b'"update"', b'"upd4te"'))
    said = _run("show", "--site", site.folder)
    assert said.exit_code == 2
    assert "sha256" not in said.output


def test_what_happens_inside_is_not_called_a_departure(left):
    site, blobs = left
    AuditLog(site.audit).append("intake.completed", files=3)
    assert len(account(site).departures) == len(blobs)
