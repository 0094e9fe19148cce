"""`consilium-sim survey`: a scenario's hospitals counted and compared by command, in sums and under their own names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.analytics.records import read_analysis
from simulations.cli import app

SCENARIO = """
base = "demo"
[scenario]
name = "seen"
seed = 4
[[site]]
name = "ash"
patients = 140
prevalence = 0.5
scanners = { aster-dr = 1, caesium-wall = 1, cygnus-dr = 2 }
[site.prevalence_by.scanner]
aster-dr = 0.8
caesium-wall = 0.8
cygnus-dr = 0.2
[[site]]
name = "other"
copies = 2
patients = 60
prevalence = 0.5
scanners = { aster-dr = 1, cygnus-dr = 1 }
"""


def surveyed(folder: Path, *words: str):
    """What the command says of this scenario."""
    path = folder / "seen.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return CliRunner().invoke(app, ["survey", str(path), "--out", str(folder / "runs"), *words])


def test_a_scenario_is_surveyed_and_the_machine_that_carries_a_class_is_named(tmp_path):
    done = surveyed(tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    record = read_analysis(Path(told["page"]).parent / "analysis.json")
    assert [part.name for part in record.own] == ["ash", "other-001", "other-002"]
    assert (record.summed, record.refused, record.simulated) == (None, {}, True)
    assert "Aster Imaging" in next(axis.bins for axis in record.axes if axis.axis == "manufacturer")
    named = {(one["kind"], one["where"]) for one in told["troubles"] if one["axis"] == "manufacturer"}
    assert {where for kind, where in named if kind == "shortcut"} == {"ash"}
    assert "How different are the hospitals?" in Path(told["page"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--summed", "oak"), "the scenario has none of that name"),
        (("--summed", "ash"), "fewer than 3 hospitals would be summed"),
        (("--epsilon", "2"), "analytics"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_asked_is_refused(tmp_path, words, said):
    done = surveyed(tmp_path, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not list(tmp_path.rglob("survey.html"))


@pytest.mark.slow
def test_all_in_one_sum_and_nobody_by_name(tmp_path):
    done = surveyed(tmp_path, "--summed", "*", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)["record"]
    assert record["own"] == []
    assert record["summed"]["sites"] == ["ash", "other-001", "other-002"]
