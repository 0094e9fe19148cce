"""How often a server may ask: counted on disk, and the same question gets the same bytes."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from client.policy import Policy
from client.questions import Questions
from client.service import SiteService
from common import plan as plans
from common import wire
from common.audit import read
from common.code import code_digest
from common.errors import PolicyRefused, StorageError
from common.messages import GroupMetrics, Instruction, Kind, ModelMetrics, Refusal, SiteMetrics
from tests.toy import ToyDuties, toy_plan, toy_service

PLAN = toy_plan()
POLICY = Policy(max_evaluations_per_run=2, max_thresholds_per_run=1, max_surveys_per_run=2)


def _ask(kind=Kind.EVALUATE, threshold=0.5, run="run-1", model=0.0, plan=PLAN):
    arrays = {} if kind is Kind.SURVEY else {"w": np.full(4, model, np.float32)}
    return Instruction(kind, run, 1, plans.dump_plan(plan), plan.digest, code_digest(), arrays, threshold)


def _refused(questions, instruction, policy=POLICY):
    with pytest.raises(PolicyRefused) as caught:
        questions.admit(instruction, policy)
    return caught.value.code


@pytest.fixture
def questions(tmp_path):
    return Questions(tmp_path / "state" / "questions.sqlite")


@pytest.mark.parametrize(
    "other", [{"threshold": 0.501}, {"model": 0.001}, {"threshold": 0.499, "model": 0.002}]
)
def test_another_model_or_operating_point_is_another_question(questions, other):
    assert questions.admit(_ask(), POLICY) is None
    assert questions.admit(_ask(**other), POLICY) is None
    assert _refused(questions, _ask(threshold=0.7)) == "policy-questions"


def test_each_kind_has_its_own_limit(questions):
    for kind, most in ((Kind.SURVEY, 2), (Kind.THRESHOLD, 1), (Kind.EVALUATE, 2)):
        for number in range(most):
            questions.admit(_ask(kind, model=number), POLICY)
        assert _refused(questions, _ask(kind, model=9)) == "policy-questions"


def test_the_same_question_is_answered_with_the_same_bytes_and_not_counted(questions):
    questions.admit(_ask(), POLICY)
    questions.keep(_ask(), b"answer")
    for _ in range(5):
        assert questions.admit(_ask(), POLICY) == b"answer"
    assert questions.admit(_ask(model=1.0), POLICY) is None


def test_a_question_that_was_never_answered_may_be_asked_again(questions):
    """A crash in between costs the server nothing, and it learned nothing."""
    for _ in range(5):
        assert questions.admit(_ask(), POLICY) is None


def test_an_answer_once_kept_stays(questions):
    questions.admit(_ask(), POLICY)
    questions.keep(_ask(), b"first")
    questions.keep(_ask(), b"second")
    assert questions.admit(_ask(), POLICY) == b"first"


def test_no_restart_forgets(questions, tmp_path):
    for number in range(2):
        Questions(tmp_path / "state" / "questions.sqlite").admit(_ask(model=number), POLICY)
    assert _refused(Questions(tmp_path / "state" / "questions.sqlite"), _ask(model=3)) == "policy-questions"


def test_renamed_runs_share_one_limit_for_the_year(questions):
    policy = replace(POLICY, max_questions_per_year=4)
    for number in range(4):
        questions.admit(_ask(run=f"run-{number}"), policy)
    assert _refused(questions, _ask(run="run-9"), policy) == "policy-questions"
    questions.admit(_ask(Kind.SURVEY, run="run-9"), policy)


def _move_clock(path, days):
    """As if everything had been asked so many days earlier."""
    with sqlite3.connect(path) as base:
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        base.execute("UPDATE asked SET at = ?", (at,))
    base.close()


def test_a_year_later_there_is_room_again_and_a_clock_set_back_frees_nothing(questions, tmp_path):
    policy = replace(POLICY, max_questions_per_year=1)
    questions.admit(_ask(), policy)
    path = tmp_path / "state" / "questions.sqlite"
    _move_clock(path, -4000)
    assert _refused(questions, _ask(run="run-2"), policy) == "policy-questions"
    _move_clock(path, 366)
    assert questions.admit(_ask(run="run-2"), policy) is None


def test_a_run_keeps_the_plan_it_began_with(questions):
    """One run could otherwise ask under ever new splits, groups and minima."""
    questions.admit(_ask(Kind.SURVEY), POLICY)
    other = toy_plan(rounds=3)
    assert _refused(questions, _ask(plan=other)) == "policy-run"
    assert questions.admit(_ask(plan=other, run="run-2"), POLICY) is None


def test_a_damaged_memory_answers_nothing(questions, tmp_path):
    questions.admit(_ask(), POLICY)
    path = tmp_path / "state" / "questions.sqlite"
    path.write_bytes(b"SQLite format 3\0" + b"junk" * 1000)
    with pytest.raises(StorageError) as caught:
        questions.admit(_ask(model=1.0), POLICY)
    assert caught.value.code == "questions-damaged"


class Leaving(ToyDuties):
    """A hospital whose patients become fewer between two questions."""

    patients = 30

    def evaluate(self, instruction: Instruction, plan: plans.Plan) -> SiteMetrics:
        self.patients -= 5
        group = GroupMetrics("all", "all", self.patients, 60)
        model = ModelMetrics("federated", (group,), 0.5)
        return SiteMetrics(self.name, instruction.run, instruction.round, code_digest(), models=(model,))


def test_through_the_service_the_same_question_tells_nothing_of_who_left_meanwhile(tmp_path):
    service = toy_service(tmp_path, "alpha", duties=Leaving("alpha"))
    first = service.answer(wire.pack(_ask()))
    assert SiteService(service.site, service._duties).answer(wire.pack(_ask())) == first
    events = [entry["event"] for entry in read(service.site.audit)]
    assert events == ["instruction", "egress.release", "instruction", "answer.repeated", "egress.release"]


def test_through_the_service_too_many_questions_are_refused_and_reach_no_data(tmp_path):
    duties = ToyDuties("alpha")
    service = toy_service(tmp_path, "alpha", duties=duties)
    replies = [service.handle(_ask(model=n)) for n in range(5)]
    assert [getattr(reply, "code", "") for reply in replies] == ["", "", "", *["policy-questions"] * 2]
    assert len(duties.seen) == 3
    assert all(isinstance(reply, Refusal) for reply in replies[3:])
