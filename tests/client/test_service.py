"""The resident service: gates before data, codes instead of text, one thing at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from client.service import SiteService
from common import plan as plans
from common import wire
from common.audit import read, verify
from common.code import code_digest
from common.errors import DataError
from common.messages import Instruction, Kind, Refusal, SiteMetrics, Update
from tests.toy import ToyDuties, toy_plan, toy_service

ARRAYS = {"w": np.zeros(4, np.float32)}


def _instruction(kind=Kind.TRAIN, plan=None, **changes):
    plan = plan or toy_plan()
    arrays = {} if kind is Kind.SURVEY else ARRAYS
    made = Instruction(kind, "run-1", 1, plans.dump_plan(plan), plan.digest, code_digest(), arrays)
    return replace(made, **changes)


class Failing(ToyDuties):
    """Duties that go wrong in a chosen way."""

    def __init__(self, error):
        super().__init__("alpha")
        self.error = error

    def train(self, instruction, plan):
        raise self.error


class Slow(ToyDuties):
    """Duties that wait until they are let go."""

    def __init__(self):
        super().__init__("alpha")
        self.go = threading.Event()

    def train(self, instruction, plan):
        self.go.wait(120)
        return super().train(instruction, plan)


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (Kind.SURVEY, SiteMetrics),
        (Kind.TRAIN, Update),
        (Kind.THRESHOLD, SiteMetrics),
        (Kind.EVALUATE, SiteMetrics),
    ],
)
def test_each_kind_of_instruction_is_answered_and_both_ways_are_logged(tmp_path, kind, reply):
    service = toy_service(tmp_path, "alpha")
    blob = service.answer(wire.pack(_instruction(kind)))
    assert type(wire.unpack(blob)) is reply
    events = [entry["event"] for entry in read(service.site.audit)]
    assert events == ["instruction", "egress.release"]
    assert verify(service.site.audit).count == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code_digest": "sha256:" + "1" * 64}, "code-mismatch"),
        ({"plan_digest": "sha256:" + "1" * 64}, "plan-mismatch"),
        ({"plan_toml": "not toml ["}, "plan"),
        ({"plan_toml": "[study]\nname = 'x'"}, "plan"),
        ({"round": -1}, "round"),
        ({"round": 0}, "round"),
    ],
)
def test_an_instruction_that_fails_a_gate_reaches_no_data(tmp_path, changes, code):
    duties = ToyDuties("alpha")
    service = toy_service(tmp_path, "alpha", duties=duties)
    reply = service.handle(_instruction(**changes))
    assert isinstance(reply, Refusal)
    assert reply.code == code
    assert duties.seen == []


def test_words_that_do_not_leave_are_not_repeated_and_hide_no_reason(tmp_path):
    service = toy_service(tmp_path, "alpha")
    reply = service.handle(_instruction(run="../Müller^Anna", code_digest="sha256:" + "1" * 64))
    assert isinstance(reply, Refusal)
    assert (reply.run, reply.code) == ("", "code-mismatch")
    assert "ller" not in service.site.audit.read_text()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            DataError("site alpha", "patient Anna Müller is in two splits", "Fix", code="data-splits"),
            "data-splits",
        ),
        (ValueError("/pacs/Müller^Anna/1.dcm"), "internal"),
        (MemoryError(), "internal"),
        (SystemExit(3), "internal"),
    ],
)
def test_no_word_of_an_exception_leaves_only_its_code(tmp_path, error, code):
    service = toy_service(tmp_path, "alpha", duties=Failing(error))
    blob = service.answer(wire.pack(_instruction()))
    reply = wire.unpack(blob)
    assert isinstance(reply, Refusal)
    assert reply.code == code
    assert "ller" not in blob.decode("latin1")
    assert "ller" not in service.site.audit.read_text()


def test_a_bad_update_of_our_own_does_not_leave(tmp_path):
    class Broken(ToyDuties):
        def train(self, instruction, plan):
            update = super().train(instruction, plan)
            return replace(update, arrays={"w": np.full(4, np.nan, np.float32)})

    service = toy_service(tmp_path, "alpha", duties=Broken("alpha"))
    assert service.handle(_instruction()).code == "egress"


@pytest.mark.parametrize("blob", [b"", b"junk", wire.pack(Refusal("a", "r", 1, "busy", "sha256:0"))])
def test_what_is_no_instruction_is_refused(tmp_path, blob):
    reply = wire.unpack(toy_service(tmp_path, "alpha").answer(blob))
    assert isinstance(reply, Refusal)
    assert reply.code == "wire"


def test_a_handler_that_hangs_is_answered_for_in_time_and_the_site_says_it_is_busy(tmp_path):
    """Flower does not count a hung client as failed, and the node then blocks later rounds and runs."""
    duties = Slow()
    service = toy_service(tmp_path, "alpha", duties=duties)
    plan = toy_plan(deadline_s=0.2)
    assert service.handle(_instruction(plan=plan)).code == "timeout"
    assert service.handle(_instruction(Kind.SURVEY, plan=plan)).code == "busy"
    duties.go.set()
    deadline = time.monotonic() + 30
    reply = service.handle(_instruction(Kind.THRESHOLD, run="run-2"))
    while isinstance(reply, Refusal) and time.monotonic() < deadline:
        reply = service.handle(_instruction(Kind.THRESHOLD, run="run-2"))
    assert isinstance(reply, SiteMetrics)


def test_work_that_hangs_is_ended_after_one_deadline_and_its_grace_and_nobody_has_to_ask(tmp_path):
    """A thread cannot be ended; the process can, and a supervisor starts it anew."""
    duties, told = Slow(), threading.Event()
    site = toy_service(tmp_path, "alpha").site
    service = SiteService(site, duties, on_hung=told.set, grace_s=1.0)
    plan = toy_plan(deadline_s=0.2)
    began = time.monotonic()
    assert service.handle(_instruction(plan=plan)).code == "timeout"
    assert service.handle(_instruction(plan=plan)).code == "busy"
    assert told.wait(20.0)
    assert time.monotonic() - began >= 1.2
    assert "duty.hung" in [entry["event"] for entry in read(site.audit)]
    duties.go.set()


def test_work_that_is_late_and_ends_within_the_grace_ends_no_service(tmp_path):
    duties, told = Slow(), threading.Event()
    site = toy_service(tmp_path, "alpha").site
    service = SiteService(site, duties, on_hung=told.set, grace_s=3.0)
    assert service.handle(_instruction(plan=toy_plan(deadline_s=0.1))).code == "timeout"
    duties.go.set()
    assert not told.wait(4.0)
    assert "duty.hung" not in [entry["event"] for entry in read(site.audit)]


def test_a_survey_that_prepares_many_images_has_ten_deadlines(tmp_path):
    """Preparing starts from the beginning when it is ended: with one deadline it might never be done."""
    told = threading.Event()

    class Preparing(Slow):
        def survey(self, instruction, plan):
            self.go.wait(20)
            return super().survey(instruction, plan)

    duties = Preparing()
    service = SiteService(toy_service(tmp_path, "alpha").site, duties, on_hung=told.set, grace_s=0.1)
    plan = toy_plan(deadline_s=0.6)
    assert service.handle(_instruction(Kind.SURVEY, plan=plan)).code == "timeout"
    assert not told.wait(1.5)
    assert told.wait(20.0)
    duties.go.set()


def test_a_server_of_another_release_is_refused_and_both_releases_are_in_the_log(tmp_path):
    service, theirs = toy_service(tmp_path, "alpha"), "sha256:" + "0" * 64
    assert service.handle(_instruction(code_digest=theirs)).code == "code-mismatch"
    (skew,) = [line["fields"] for line in read(service.site.audit) if line["event"] == "version.skew"]
    assert skew == {"version": code_digest(), "digest": theirs}


def test_the_stricter_of_plan_and_policy_suppresses(tmp_path):
    service = toy_service(tmp_path, "alpha")
    assert service.site.policy.min_cell == 11
    plan = plans.replace(toy_plan(), evaluation={"min_cell": 45})
    group = service.handle(_instruction(Kind.EVALUATE, plan=plan)).models[0].groups[0]
    assert (group.positives, group.negatives, group.auroc) == (None, None, None)


MASKED = (Kind.KEYS, Kind.SHARES, Kind.CONSENT, Kind.UNMASK)


@pytest.mark.parametrize("kind", list(Kind))
def test_only_approved_plans_are_followed_where_the_hospital_lists_them(tmp_path, kind):
    """Law 4: by digest, and before anything is done, not only before training."""
    approved = toy_plan()
    service = toy_service(tmp_path, "alpha")
    strict = replace(service.site, policy=replace(service.site.policy, plans=(approved.digest,)))
    duties = ToyDuties("alpha")
    service = SiteService(strict, duties)
    first = service.handle(_instruction(kind, plan=approved))
    # The stages of a masked round ask for a roster next, which this hospital has not; the plan has been let pass.
    refused = {Kind.ANALYSE: "kind", **dict.fromkeys(MASKED, "not-enrolled")}
    assert first.code == refused[kind] if kind in refused else not isinstance(first, Refusal)
    seen = list(duties.seen)
    other = plans.replace(approved, training={"learning_rate": 0.123})
    reply = service.handle(_instruction(kind, plan=other))
    assert isinstance(reply, Refusal)
    assert reply.code == "policy-plan"
    assert duties.seen == seen


def test_a_site_without_training_patients_says_so(tmp_path):
    assert toy_service(tmp_path, "alpha", bucket=0).handle(_instruction()).code == "test-only"


def test_when_even_the_log_fails_only_a_bare_refusal_leaves(tmp_path):
    service = toy_service(tmp_path, "alpha")
    service.site.audit.mkdir(parents=True)
    again = SiteService(service.site, ToyDuties("alpha"))
    assert again.handle(_instruction()) == Refusal("alpha", "", 0, "storage", code_digest())
