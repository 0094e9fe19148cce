"""An analysis on its way from the consortium to a hospital's people: released, read, its cost, approved, queued, shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from client import policy
from client.policy import Policy
from client.privacy.ledger import Ledger
from client.study_cost import cost_of
from client.study_words import words
from common.errors import PolicyRefused
from common.plan import dump_plan
from server.analytics.records import AnalysisRecord, write_analysis
from server.cli import app
from server.release import released
from server.runs import study_of
from tests.counted import counted_site, population, survey_plan
from tests.enrolled import consortium

NAMES = ("anna", "bert", "carla")


def test_the_board_reads_that_nothing_is_trained_and_who_sees_what():
    told = dict(words(survey_plan(NAMES), Policy()))
    assert "nothing is trained" in told["what is done"]
    assert "anna, bert, carla" in told["who"]
    assert "nobody shows cells of its own" in told["what leaves"]
    assert "none: exact sums" in told["noise in the sum"]
    told = dict(words(survey_plan(NAMES, analytics={"epsilon": 1.0}), Policy()))
    assert "ε at most 1" in told["noise in the sum"]
    assert "weights" not in " ".join(told.values())


def test_exact_counts_cost_no_epsilon_and_noise_costs_what_the_plan_says(tmp_path):
    site = counted_site(tmp_path, "anna", population(1, 40))
    # A virtual hospital's ledger begins with its first round; a real one is made with the site.
    Ledger.create(site.ledger, simulated=True).close()
    free = cost_of(site, survey_plan(NAMES))
    assert (free.patients, free.training, free.epsilon, free.refused) == (40, 0, 0.0, "")
    paid = cost_of(site, survey_plan(NAMES, analytics={"epsilon": 1.0}))
    assert 0.8 < paid.epsilon <= 1.0
    assert paid.refused == ""
    dear = replace(site, policy=replace(site.policy, max_epsilon_lifetime=0.5))
    assert cost_of(dear, survey_plan(NAMES, analytics={"epsilon": 1.0})).refused == "ledger-spent"


@pytest.mark.parametrize(
    ("rules", "asked", "code"),
    [
        ({"analytics": "off"}, {}, "policy-analytics"),
        ({"max_epsilon_per_run": 0.5}, {"epsilon": 1.0}, "policy-epsilon"),
        ({"max_delta": 1e-6}, {"epsilon": 1.0}, "policy-delta"),
    ],
)
def test_a_policy_refuses_an_analysis_by_name(rules, asked, code):
    with pytest.raises(PolicyRefused) as caught:
        policy.check(Policy(**rules), survey_plan(NAMES, analytics=asked))
    assert caught.value.code == code


def test_a_hospital_that_trains_under_privacy_only_takes_part_in_an_exact_sum():
    """Nothing is trained, so the rule for training is not asked."""
    policy.check(Policy(), survey_plan(NAMES))


def test_the_command_queues_what_was_released_and_then_shows_it(tmp_path):
    server, plan = consortium(tmp_path), survey_plan(NAMES)
    file = tmp_path / "plan.toml"
    file.write_text(dump_plan(plan))
    runner, line = CliRunner(), ["survey", str(file), "--folder", str(server.folder), "--json"]
    assert runner.invoke(app, line).exit_code != 0  # nobody could have approved it
    released(server, plan)
    first = runner.invoke(app, line)
    assert json.loads(first.stdout)["state"] == "queued"
    assert json.loads(runner.invoke(app, line).stdout)["state"] == "queued"
    study = study_of(server.folder, plan)
    home = server.folder / "runs" / study.name
    made = AnalysisRecord(
        "run-1", "2031-05-04T10:00:00+00:00", "test", "?", plan.digest, plan.digest, True, ("a",), (), (), 11
    )
    write_analysis(made, home / "analysis.json")
    (home / "study.json").write_text(json.dumps({"name": study.name, "state": "completed", "number": 1}))
    shown = runner.invoke(app, line)
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["record"]["run"] == "run-1"
    assert (home / "survey.html").exists()


def test_the_command_refuses_a_plan_that_trains(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(dump_plan(replace(survey_plan(NAMES), analytics=type(survey_plan(NAMES).analytics)())))
    server = consortium(tmp_path)
    assert CliRunner().invoke(app, ["survey", str(file), "--folder", str(server.folder)]).exit_code != 0
