"""The sweep of utility against privacy: every setting once, on the same hospitals, resumable, and a page from records."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from common.errors import PlanError
from common.messages import Estimate
from simulations.cli import app
from simulations.frontier.page import curve, lines_of, write_page
from simulations.frontier.points import FrontierRecord, Point, PointRecord, digest_of, plan_of, points_of
from simulations.frontier.sweep import run_frontier
from simulations.scenario import HERE, load_scenario
from tests.simulations.runs import PATIENTS, once, write_scenario

SHIPPED = HERE / "privacy_frontier.toml"
SWEEP = """
[frontier]
epsilons = [8.0, inf]
images_per_patient = [2]
[frontier.part.head]
[frontier.private.head.training]
learning_rate = 2.0
"""


def sweep_file(folder: Path, more: str = SWEEP) -> Path:
    """Two hospitals, one round, two settings."""
    path = write_scenario(
        folder, arms=("federated", "federated-dp"), rounds=1, patients=PATIENTS, test_fraction=0.5
    )
    path.write_text(path.read_text().replace('method = "finetune"', 'method = "none"') + more)
    return path


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep, made once."""

    def make(folder: Path) -> None:
        run_frontier(load_scenario(sweep_file(folder)), folder / "runs")

    (folder,) = (once(tmp_path_factory, "sweep", make) / "runs").iterdir()
    return folder


def record_of(folder: Path) -> FrontierRecord:
    return TypeAdapter(FrontierRecord).validate_json((folder / "frontier.json").read_bytes())


# ---- the settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_data", [False, True])
def test_the_shipped_sweep_is_the_one_that_was_asked_for(with_data):
    """Epsilon 1, 3, 8 and none, K of 1 and 4, three trainable parts: every one with every other."""
    scenario = load_scenario(SHIPPED, with_data=with_data)
    points = points_of(scenario)
    assert len(points) == len(set(points)) == 4 * 2 * 3
    assert {p.epsilon for p in points} == {1.0, 3.0, 8.0, None}
    assert {p.views for p in points} == {1, 4}
    assert {p.part for p in points} == {"head", "adapters", "all"}
    assert scenario.scenario.kind == ("images" if with_data else "virtual")


def test_each_setting_has_the_plan_it_says():
    scenario = load_scenario(SHIPPED)
    for point in points_of(scenario):
        plan = plan_of(scenario, point)
        assert plan.private == (point.epsilon is not None)
        assert not plan.private or plan.privacy.epsilon == point.epsilon
        assert (plan.model.trainable, plan.training.images_per_patient) == (point.part, point.views)
        assert plan.training.augmentation.active, "else K would be no number of views"
    digests = {plan_of(scenario, point).digest for point in points_of(scenario)}
    assert len(digests) == 24


def test_what_a_budget_changes_is_the_budget_alone():
    scenario = load_scenario(SHIPPED)
    one, eight = (plan_of(scenario, Point("all", 4, e)) for e in (1.0, 8.0))
    assert dataclasses.replace(one.privacy, epsilon=8.0) == eight.privacy
    assert (one.training, one.model, one.federation) == (eight.training, eight.model, eight.federation)


def test_real_images_change_only_what_the_file_says():
    virtual, real = (load_scenario(SHIPPED, with_data=w) for w in (False, True))
    assert real.scenario.external == ("hannover_covid",)
    assert real.frontier == virtual.frontier
    assert digest_of(real) != digest_of(virtual)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("[frontier]\nepsilons = [8.0]\nimages_per_patient = [1]\n", "frontier.part"),
        (SWEEP.replace("[8.0, inf]", "[-1.0]"), "frontier.epsilons"),
        (SWEEP.replace("[2]", "[0]"), "frontier.images_per_patient"),
        (SWEEP.replace("[frontier.part.head]", "[frontier.part.tail]"), "tail"),
    ],
)
def test_a_wrong_sweep_names_what_is_wrong(tmp_path, more, name):
    with pytest.raises(PlanError) as caught:
        load_scenario(sweep_file(tmp_path, more))
    assert name in str(caught.value)


def test_a_setting_that_makes_no_good_plan_is_refused_before_anything_is_run(tmp_path):
    path = sweep_file(tmp_path, SWEEP.replace("learning_rate = 2.0", "learning_rat = 2.0"))
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert "learning_rat" in result.stderr
    assert not (tmp_path / "runs").exists()


# ---- the sweep ------------------------------------------------------------------------------------------


def test_every_setting_leaves_a_record_with_its_interval_and_its_cost(sweep):
    record = record_of(sweep)
    assert record.missing == ()
    assert [p.point.name for p in record.points] == ["head-k2-eps8", "head-k2-open"]
    for point in record.points:
        assert point.mean is not None
        assert point.mean.low < point.mean.value < point.mean.high
        assert set(point.sites) == {"alder", "birch"}
        if point.point.epsilon is None:
            assert (point.spent, point.noise) == (None, None)
        else:
            assert 0 < point.spent <= point.point.epsilon
            assert point.noise > 0


def test_only_the_trainable_part_is_counted(sweep):
    for point in record_of(sweep).points:
        assert (point.network, point.trainable) == ("scatter", (1 + 3 * 4) * 16 + 1)


def test_nothing_is_run_again_and_what_is_lost_is(sweep):
    """The folder is found by what the scenario says; an unfinished setting leaves no record and is repeated whole."""
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("points/*/record.json")}
    scenario = load_scenario(sweep.parent.parent / "small.toml")
    _, folder = run_frontier(scenario, sweep.parent)
    assert folder == sweep
    assert before == {path: path.stat().st_mtime_ns for path in before}
    lost = sweep / "points" / "head-k2-open" / "record.json"
    lost.unlink()
    record, _ = run_frontier(scenario, sweep.parent)
    assert record.missing == ()
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {lost}
    assert not list((sweep / "federation" / "arms").glob("*")), "no virtual site outlives its setting"


def test_the_page_holds_the_records_figures_and_nothing_else(sweep):
    """Self-contained; each mean of the record stands in the table."""
    html = (sweep / "frontier.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    for point in record_of(sweep).points:
        assert f"{point.mean.value:.2f} (" in html
    assert "Not whole" not in html


# ---- the page -------------------------------------------------------------------------------------------


def made(part="head", views=4, epsilon=8.0, value=0.8) -> PointRecord:
    mean = None if value is None else Estimate(value, value - 0.05, value + 0.05)
    patients = {"a": 100}
    point = Point(part, views, epsilon)
    noise, spent = (None, None) if epsilon is None else (1.5, epsilon)
    return PointRecord(
        point, "scatter", 1601, noise, {"a": mean}, patients, mean, spent, False, 12.0, "sha256:p", "sha256:c"
    )


def whole(*points: PointRecord, missing=()) -> FrontierRecord:
    return FrontierRecord(
        "sweep", "Is there <i>?", "2026-01-01T00:00:00+00:00", 1, "made up", True, 10, 0.5, 4, 1e-5, 0.95,
        points, missing,
    )  # fmt: skip


def test_one_line_for_each_part_and_k_with_an_interval_at_each_point():
    points = [made(p, k, e) for p in ("head", "all") for k in (1, 4) for e in (1.0, 8.0, None)]
    lines = lines_of(whole(*points))
    assert [(line.part, line.views, line.dense) for line in lines] == [
        ("head", 4, True), ("head", 1, False), ("all", 4, True), ("all", 1, False),
    ]  # fmt: skip
    assert [sorted(line.points) for line in lines] == [[1.0, 8.0, math.inf]] * 4
    svg = str(curve(lines, (680.0, 320.0)))
    assert svg.count('class="curve"') == 4
    assert len(re.findall(r'<line [^>]*stroke="#', svg)) == 12


def test_what_is_missing_or_held_back_is_said(tmp_path):
    write_page(whole(made(value=None), missing=("all-k4-eps1",)), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "Not whole: 1" in html
    assert "all-k4-eps1" in html
    assert "Nothing was released" in html
    assert "<i>" not in html


def test_a_sweep_of_which_nothing_ran_still_makes_a_page(tmp_path):
    write_page(whole(missing=("all-k4-eps1",)), tmp_path / "page.html")
    assert "Nothing was released" in (tmp_path / "page.html").read_text()


def test_the_command_prints_the_sweep_as_json(sweep):
    scenario = sweep.parent.parent / "small.toml"
    result = CliRunner().invoke(app, ["run", str(scenario), "--out", str(sweep.parent), "--json"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["points"]) == 2
