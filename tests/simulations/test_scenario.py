"""Scenario files: what ships is good, what is wrong is refused whole, with names and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import InputError, PlanError
from simulations.cli import app
from simulations.scenario import HERE, load_scenario
from tests.simulations.runs import small, write_scenario


def broken(folder: Path, old: str, new: str) -> Path:
    """A scenario file with one thing changed."""
    path = write_scenario(folder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def typed(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("path", sorted(HERE.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_scenario_is_good_and_its_private_arm_within_eight(path: Path) -> None:
    scenario = load_scenario(path)
    all_arms = {"alone", "federated", "federated-dp", "pooled"}
    of_its_own = {
        "clipping": {"federated-dp"},
        "hundred-sites": {"federated", "pooled"},
        "thousand-sites": {"federated", "pooled"},
    }.get(scenario.scenario.name)
    expected = {"federated", "federated-dp"} if scenario.frontier else of_its_own or all_arms
    assert set(scenario.scenario.arms) == expected
    plan = scenario.plan_for("federated-dp")
    assert plan.private
    assert plan.privacy.epsilon <= 8
    if "federated" in expected:
        assert not scenario.plan_for("federated").private


def test_the_demo_is_as_large_as_it_must_be() -> None:
    demo = load_scenario(HERE / "demo.toml")
    assert demo.scenario.hospitals >= 6
    assert demo.scenario.patients >= 1500
    assert max(demo.plan_for("federated").input.shape) <= 96


def test_an_arm_changes_only_the_plan_of_its_own(tmp_path: Path) -> None:
    scenario = small(tmp_path)
    open_plan, private = scenario.plan_for("federated"), scenario.plan_for("federated-dp")
    assert (open_plan.private, private.private, private.privacy.clip) == (False, True, 1.0)
    assert open_plan.model == private.model
    assert scenario.plan_for("federated") == open_plan


def test_what_is_given_replaces_what_is_written(tmp_path: Path) -> None:
    scenario = load_scenario(write_scenario(tmp_path), rounds=7, seed=5, patients=None)
    assert scenario.scenario.seed == 5
    assert scenario.scenario.patients == 64
    assert {scenario.plan_for(arm).federation.rounds for arm in scenario.scenario.arms} == {7}


WRONG = {
    "unknown arm": ('"pooled"', '"pooled", "gossip"', "gossip"),
    "unknown key of a scenario": ("hospitals = 2", "hospitals = 2\nhospital = 3", "scenario.hospital"),
    "unknown key of the plan": ("rounds = 2", "rounds = 2\nround = 3", "federation.round"),
    "unknown section of an arm": ("[arm.federated-dp.privacy]", "[arm.federated-dp.privcy]", "privcy"),
    "unknown arm to change": ("[arm.federated-dp.privacy]", "[arm.federated-pd.privacy]", "federated-pd"),
    "negative epsilon": ("epsilon = 8.0", "epsilon = -8.0", "epsilon"),
    "unknown network": ('name = "scatter"', 'name = "scater"', "scater"),
    "unknown kind": ('kind = "virtual"', 'kind = "real"', "scenario.kind"),
    "negative seed": ("seed = 1", "seed = -1", "scenario.seed"),
    "no arm": ('arms = ["alone", "federated", "federated-dp", "pooled"]', "arms = []", "scenario.arms"),
    "an arm twice": ('arms = ["alone"', 'arms = ["alone", "alone"', "scenario.arms"),
    "a private arm without privacy": ('mode = "patient-dp"', 'mode = "none"', "arm.federated-dp.privacy"),
    "external among virtual": ("hospitals = 2", 'hospitals = 2\nexternal = ["alder"]', "scenario.external"),
    "a number where a section is due": (
        "[plan.study]",
        "[plan]\ntraining = 3\n[plan.study]",
        "plan.training",
    ),
    "no scenario": ("[scenario]", "[scenery]", "scenery"),
    "too few patients": ("patients = 64", "patients = 8", "scenario.patients"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_scenario_names_what_is_wrong(tmp_path: Path, case: str) -> None:
    old, new, name = WRONG[case]
    path = broken(tmp_path, old, new)
    with pytest.raises(PlanError) as caught:
        load_scenario(path, rounds=2, seed=None)
    assert name in str(caught.value)
    assert all(problem.rule and problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize("case", ["unknown arm", "unknown key of the plan", "no scenario"])
def test_a_wrong_scenario_ends_the_command_with_status_2(tmp_path: Path, case: str) -> None:
    old, new, name = WRONG[case]
    result = typed("run", broken(tmp_path, old, new), "--out", tmp_path / "runs")
    assert result.exit_code == 2
    assert name in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "runs").exists(), "nothing was begun"


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = broken(tmp_path, "hospitals = 2", "hospitals = 1\nhospital = 3")
    with pytest.raises(PlanError) as caught:
        load_scenario(path)
    assert {problem.where for problem in caught.value.problems} == {"scenario.hospital", "scenario.hospitals"}


def test_a_scenario_that_is_not_there_names_those_that_ship(tmp_path: Path) -> None:
    result = typed("run", tmp_path / "mine.toml")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in ("mine.toml", "demo.toml", "cxr_pneumonia.toml"))


def test_a_file_that_is_not_toml_or_a_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[scenario\n")
    for path in (tmp_path / "x.toml", tmp_path):
        with pytest.raises(InputError, match=r"is not TOML|cannot be read"):
            load_scenario(path)


@pytest.mark.parametrize("data", [None, "nowhere", "empty"])
def test_real_images_need_their_folder(tmp_path: Path, data: str | None) -> None:
    (tmp_path / "empty").mkdir()
    given = ["--data", tmp_path / data] if data else []
    result = typed("run", HERE / "cxr_pneumonia.toml", *given, "--out", tmp_path / "runs")
    assert result.exit_code == 2
    assert "--data" in result.stderr
    assert "labels.csv" in result.stderr


def test_the_command_line_refuses_numbers_that_make_no_federation(tmp_path: Path) -> None:
    for words in (["--hospitals", "1"], ["--patients", "5"], ["--rounds", "0"], ["--seed", "-1"]):
        assert typed("demo", *words, "--out", tmp_path / "runs").exit_code == 2
    many = typed("demo", "--hospitals", "30", "--patients", "60", "--out", tmp_path / "runs", "--no-open")
    assert many.exit_code == 2
    assert "hospitals" in many.stderr
