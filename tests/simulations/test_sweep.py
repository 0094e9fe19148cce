"""A grid of settings: what is typed, that every point runs once, and that hospitals are prepared once for all."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from common.checkpoints import load
from common.errors import InputError, PlanError
from simulations.board import board
from simulations.cli import app
from simulations.scenario import scenario_with
from simulations.sweep import Asked, name_of, sweep
from simulations.sweep_grid import grid_of
from simulations.sweep_shown import Watched, line, table

_SCENARIO = """
base = "demo"
[scenario]
name = "few"
arms = ["federated", "alone"]
least_patients = 2
[[site]]
name = "practice"
copies = 2
patients = 14
prevalence = 0.5
scanners = { aster-dr = 1 }
[plan.input]
shape = [64, 64]
[plan.federation]
rounds = 1
[plan.evaluation]
min_cell = 1
bootstrap = 100
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "few.toml").write_text(_SCENARIO)
    asked = Asked(
        folder / "few.toml",
        grid_of(["plan.training.learning_rate=0.01,0.1"]),
        folder / "runs",
        folder / "cache",
    )
    return asked, *sweep(asked)


def test_values_are_toml_where_they_can_be_and_words_else():
    found = grid_of(["a.b=1,2.5,true", "a.c=[1,2],[3]", "a.d=sgd,adamw", 'a.e="x,y"'])
    assert found == {
        "a.b": [1, 2.5, True],
        "a.c": [[1, 2], [3]],
        "a.d": ["sgd", "adamw"],
        "a.e": ["x,y"],
    }


@pytest.mark.parametrize(
    "wrong", [["seed"], ["a.b="], ["ab=1"], ["a.b=1", "a.b=2"], ["a.b=" + "1," * 200, "a.c=" + "1," * 200]]
)
def test_what_is_no_grid_is_refused(wrong):
    with pytest.raises(InputError):
        grid_of(wrong)


def test_every_point_ran_and_every_arm_has_its_figures(swept):
    _, found, folder = swept
    assert not found.missing
    assert [point.settings["plan.training.learning_rate"] for point in found.points] == [0.01, 0.1]
    for point in found.points:
        assert set(point.arms) == {"federated", "alone"}
        # So few patients are suppressed: a sweep shows no more than a hospital would release.
        assert all(
            (of.status, of.subset, of.sites, of.mean_auroc) == ("completed", False, 0, None)
            for of in point.arms.values()
        )
        assert (folder / "points" / point.name / "arms" / "federated" / "model.safetensors").is_file()
        assert not (folder / "points" / point.name / "federation").exists()
    assert len({json.dumps(point.plan_digests) for point in found.points}) == 2
    assert json.loads((folder / "sweep.json").read_text())["scenario"] == "few"
    assert table(found).row_count == 4
    assert line(found.points[0], 1, 2).startswith("1 of 2: learning_rate 0.01: federated suppressed")


def test_hospitals_were_prepared_once_for_both(swept):
    asked, _, _ = swept
    assert len(list(asked.cache.iterdir())) == 1


def test_the_same_command_runs_only_what_is_missing(swept):
    asked, found, folder = swept
    lost = found.points[1]
    before = (folder / "points" / found.points[0].name / "record.json").stat().st_mtime_ns
    (folder / "points" / lost.name / "record.json").unlink()
    model = folder / "points" / lost.name / "arms" / "federated" / "model.safetensors"
    bits = {name: value.tobytes() for name, value in load(model).arrays.items()}
    told = []
    again, where = sweep(asked, lambda *of: told.append(of))
    assert where == folder
    assert [(point.name, done, of) for point, done, of in told] == [(lost.name, 2, 2)]
    assert (folder / "points" / found.points[0].name / "record.json").stat().st_mtime_ns == before
    assert again.points[1].plan_digests == lost.plan_digests
    assert {
        name: value.tobytes() for name, value in load(model).arrays.items()
    } == bits  # computed anew, the same


def test_a_setting_that_cannot_be_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "few.toml").write_text(_SCENARIO)
    asked = Asked(tmp_path / "few.toml", {"plan.federation.rounds": [1, -1]}, tmp_path / "runs")
    with pytest.raises(PlanError):
        sweep(asked)
    assert not (tmp_path / "runs").exists()


def test_a_point_is_named_by_what_it_sets_whatever_the_order():
    assert name_of({"a.b": 1, "a.c": 2}) == name_of({"a.c": 2, "a.b": 1}) != name_of({"a.b": 2, "a.c": 1})


def test_settings_stand_above_the_file_and_its_base(tmp_path):
    (tmp_path / "few.toml").write_text(_SCENARIO)
    scenario = scenario_with(tmp_path / "few.toml", {"plan.federation.rounds": 3, "scenario.seed": 9})
    assert scenario.plan_for("federated").federation.rounds == 3
    assert scenario.scenario.seed == 9


def _drawn(what, width: int = 140) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width, force_terminal=True, color_system=None).print(what)
    return screen.getvalue()


def test_the_live_table_says_what_runs_what_ended_and_what_waits(swept):
    _, found, _ = swept
    first, second = found.points
    points = [(point.name, point.settings) for point in found.points]
    watched = Watched(
        "few", [*points, *((f"later-{n}", {"plan.training.learning_rate": n}) for n in range(40))]
    )
    assert "0 of 42 settings ended, 0 run, 42 wait" in _drawn(watched.drawn())
    watched.at_once = 2
    watched.ended(second)  # whoever ends first, the earliest of the others run
    text = _drawn(watched.drawn())
    assert "1 of 42 settings ended, 2 run, 39 wait" in text
    rows = [row.split() for row in text.splitlines() if " runs " in row or " ended " in row]
    assert [row[1] for row in rows] == ["0.01", "0", "0.1"]
    assert [next(word for word in row if word in {"runs", "ended"}) for row in rows] == [
        "runs",
        "runs",
        "ended",
    ]
    watched.ended(first)
    watched.at_once = 64
    assert len(_drawn(watched.drawn()).splitlines()) <= 24, "a screen holds it"


def test_a_terminal_has_the_table_above_the_bars_and_keeps_neither(swept):
    _, found, _ = swept
    watched = Watched("few", [(point.name, point.settings) for point in found.points])
    screen = io.StringIO()
    console = Console(file=screen, width=140, height=40, force_terminal=True)
    with board(watched.drawn, console=console) as bars:
        watched.ended(found.points[0])
        bars.tick("settings", 1, 2)
    assert "1 of 2 settings ended" in screen.getvalue()
    assert "settings" in screen.getvalue().rpartition("1 of 2 settings ended")[2], "the bar is below"
    quiet = io.StringIO()
    with board(watched.drawn, silent=True, console=Console(file=quiet, force_terminal=True)) as bars:
        bars.tick("settings", 1, 2)
    assert not quiet.getvalue()


def test_with_json_nothing_is_said_but_the_result(swept):
    asked, found, _ = swept
    words = [
        "--set",
        "plan.training.learning_rate=0.01,0.1",
        "--out",
        str(asked.out),
        "--cache",
        str(asked.cache),
    ]
    result = CliRunner().invoke(app, ["sweep", str(asked.path), *words, "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(json.loads(result.stdout)["points"]) == len(found.points)
