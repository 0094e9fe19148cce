"""Comparing methods: pairs by seed, the worst hospital of each, what is kept, what is tried again, what the page says."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from common.errors import InputError, PlanError
from common.methods import METHODS, methods_of
from common.pages.page import signed
from simulations.compare.cells import Cell, Compared, keep, kept, row
from simulations.compare.page import drawing, said, summary, write_page
from simulations.compare.sites_told import change, three
from simulations.compare.sweep import Asked, compare, usual
from simulations.compare.ways import ALONE, POOLED, WAYS, told, ways
from simulations.scenario import HERE, load_scenario
from tests.sites import image_site

TINY = """
[scenario]
name = "tiny"
kind = "virtual"
hospitals = 2
patients = 240
arms = ["federated"]
[plan.study]
name = "tiny"
question = "Is it there?"
[plan.task]
kind = "binary"
classes = ["finding"]
[plan.input]
modalities = ["DX"]
shape = [16, 16]
[plan.labels]
source = "synthetic"
provenance = "made for a test"
[plan.model]
name = "small-cnn"
options = { width = 4, groups = 2 }
[plan.federation]
rounds = 2
[plan.evaluation]
bootstrap = 100
"""


def cell(way, seed, *aurocs, **more):
    sites = {f"site-{k}": a for k, a in enumerate(aurocs)}
    return Cell(way, seed, sites, dict.fromkeys(sites, 0.1), **more)


# ---- the figures ---------------------------------------------------------------------------------------


def test_the_worst_hospital_is_chosen_in_each_seed_and_externals_count_in_neither():
    one = cell("fedavg", 1, 0.8, 0.6, 0.2, external=("site-2",))
    assert (one.mean, one.worst) == (pytest.approx(0.7), 0.6)
    assert cell("fedavg", 1, None, 0.9).mean == 0.9
    assert cell("fedavg", 1, None, None).worst is None


def test_changes_are_paired_by_seed_and_intervals_are_students_by_hand():
    base = [cell("fedavg", 1, 0.80, 0.70), cell("fedavg", 2, 0.90, 0.80), cell("fedavg", 3, 0.70, 0.60)]
    other = [cell("ditto", 1, 0.82, 0.72), cell("ditto", 2, 0.91, 0.83), cell("ditto", 3, 0.71, 0.61)]
    found = row("ditto", other, base, 0.0)
    assert found.mean.value == pytest.approx((0.77 + 0.87 + 0.66) / 3)
    # Changes of the mean: 0.02, 0.02, 0.01; t(0.975, 2) = 4.3027.
    reach = 4.3027 * (1 / 30000) ** 0.5 / 3**0.5
    assert found.mean_change.value == pytest.approx(0.05 / 3)
    assert found.mean_change.high - found.mean_change.value == pytest.approx(reach, rel=1e-3)
    assert found.worst_change.value == pytest.approx((0.02 + 0.03 + 0.01) / 3)
    overlapping = row("ditto", other, base, 0.5)
    assert overlapping.mean_change.high > found.mean_change.high
    assert row("fedavg", base, base, 0.0).mean_change is None


def test_a_seed_that_failed_is_left_out_of_both_and_named():
    base = [cell("fedavg", 1, 0.8), cell("fedavg", 2, 0.9)]
    other = [cell("scaffold", 1, 0.7), Cell("scaffold", 2, {}, {}, failed="subset")]
    found = row("scaffold", other, base, 0.0)
    assert found.seeds == 1
    assert found.failed == {"2": "subset"}
    assert found.mean_change.value == pytest.approx(-0.1)


def test_only_a_whole_cell_of_this_very_plan_is_kept(tmp_path):
    path = tmp_path / "cell.json"
    assert kept(path, "sha256:a") is None
    keep(cell("fedavg", 1, 0.8, plan_digest="sha256:a"), path)
    assert kept(path, "sha256:a").sites == {"site-0": 0.8}
    assert kept(path, "sha256:b") is None
    path.write_bytes(path.read_bytes()[:-5])
    assert kept(path, "sha256:a") is None


# ---- the ways ------------------------------------------------------------------------------------------


def test_every_method_can_be_compared_and_each_way_is_the_method_of_its_name():
    assert set(WAYS) - {ALONE, POOLED} == set(METHODS)
    scenario = load_scenario(HERE / "demo.toml", hospitals=4, patients=400)
    for way in ways("all"):
        if way.name == "local-affine":
            with pytest.raises(PlanError) as caught:
                way.plan(scenario, 50)
            assert "local-affine" in told(caught.value)
            continue
        plan = way.plan(scenario, 50)
        assert way.name in (ALONE, POOLED) or way.name in methods_of(plan)
        assert way.name == "finetune" or plan.personalisation.method in ("none", way.name)


def test_scaffold_takes_a_usual_hospitals_steps_as_long_as_momentum_makes_them():
    """Six steps of momentum 0.9 from rest: 1, 1.9, 2.71, 3.439, 4.0951, 4.68559 times the rate; an unfull batch is a step."""
    scenario = load_scenario(HERE / "demo.toml", hospitals=4, patients=400)
    (way,) = [one for one in ways("scaffold") if one.name == "scaffold"]
    training = way.plan(scenario, 96).training
    assert (training.momentum, training.local_steps) == (0.0, 2 * 3)
    assert training.learning_rate == pytest.approx(0.1 * 17.82969 / 6)
    assert way.plan(scenario, 65).training.local_steps == 2 * 3


def test_fedavg_is_always_there_and_a_name_that_is_none_is_refused():
    assert [way.name for way in ways("ditto")] == ["fedavg", "ditto"]
    with pytest.raises(InputError, match="Known are"):
        ways("fedavgg")


def test_other_numbers_come_from_a_file(tmp_path):
    path = tmp_path / "more.toml"
    path.write_text('[prox-strong.federation]\nstrategy = "fedprox"\nproximal_mu = 1.0\n')
    (way,) = [one for one in ways("prox-strong", path) if one.name != "fedavg"]
    assert way.plan(load_scenario(HERE / "demo.toml"), 50).federation.proximal_mu == 1.0
    for text in ("x", "[fedavg.training]\nmomentum = 0.0\n", "a = 3\n", "[Name.training]\nmomentum = 0.0\n"):
        path.write_text(text)
        with pytest.raises(InputError):
            ways("all", path)


# ---- the page ------------------------------------------------------------------------------------------


def _record(seeds=(1, 2, 3), gain=0.05):
    cells = {
        name: [
            cell(name, s, 0.7 + 0.01 * s + by, 0.6 + 0.02 * s + by, rounds=3, bytes_up=2_000_000)
            for s in seeds
        ]
        for name, by in (("fedavg", 0.0), ("ditto", gain))
    }
    rows = [row(name, of, cells["fedavg"], 0.0) for name, of in cells.items()]
    rows.append(replace(row("local-affine", [], [], 0.0), refused="this network <trains> none"))
    everything = tuple(c for of in cells.values() for c in of)
    names = ("site-0", "site-1")
    return Compared(
        "tiny",
        "Is it there?",
        "2026-01-01T00:00:00+00:00",
        seeds,
        True,
        "made",
        names,
        tuple(rows),
        everything,
    )


def test_the_page_holds_figure_table_refusals_and_numbers_and_nothing_from_elsewhere(tmp_path):
    write_page(_record(), tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text("utf-8")
    assert "ditto: better than fedavg for the mean of the hospitals" in text
    assert "this network &lt;trains&gt; none" in text
    assert "data:text/csv" in text
    assert not re.search(r"(src|href)=.https?:", text)
    assert three(_record().rows[0].worst) in text


def test_a_difference_that_chance_could_make_is_not_told_as_one():
    assert said(_record(gain=0.0)) == ["Over 3 seeds, nothing differs from fedavg beyond chance."]
    assert "One seed" in said(_record(seeds=(1,)))[0]


def test_where_nothing_was_measured_nobody_is_told_that_nothing_differs():
    """Every seed ended on too few hospitals: the page says so, why, and what to do."""
    failed = [cell(name, s, failed="subset") for name in ("fedavg", "ditto") for s in (1, 2)]
    rows = tuple(row(n, [c for c in failed if c.way == n], failed[:2], 0.0) for n in ("fedavg", "ditto"))
    first, second = said(replace(_record(seeds=(1, 2)), rows=rows, cells=tuple(failed)))
    assert "Nothing was compared" in first
    assert "fedavg (seed 1), fedavg (seed 2), ditto (seed 1), ditto (seed 2)" in second
    assert (
        "subset: fewer hospitals than the plan requires. Wait for the others, or lower least_sites." in second
    )
    one = (*_record().rows[:1], replace(_record().rows[1], failed={"3": "subset"}))
    told = said(replace(_record(), rows=one))
    assert "better than fedavg" in told[0]
    assert told[-1].startswith("Ended without a figure: ditto (seed 3).")


def test_the_drawing_says_in_words_what_it_shows_and_nothing_where_nothing_was_measured():
    rows = _record().rows
    assert three(rows[1].mean) in str(drawing(rows[:2], 372.0))
    assert "Nothing was measured" in str(drawing([], 372.0))
    assert "refused: this network" in str(summary(_record()).columns[1]._cells)


# ---- the whole -----------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path):
    """A comparison whose hospitals are there already, as after a run that was interrupted."""
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "more.toml").write_text("[too-few.federation]\nleast_sites = 3\n")
    scenario = load_scenario(tmp_path / "tiny.toml", seed=1)
    homes = []

    def begun(folder):
        home = folder / "seed-1"
        for name in ("alpha", "beta"):
            image_site(home / name, name, patients=120)
        (home / "prepared.json").write_text(json.dumps(["alpha", "beta"]))
        homes.append(home)

    def run(names, begin=begun):
        more = tmp_path / "more.toml"
        return compare(Asked((scenario,), tuple(ways(names, more)), tmp_path / "runs"), begin)

    return run, homes


def test_ways_are_run_once_measured_kept_and_what_failed_is_tried_again(prepared):
    run, homes = prepared
    first, folder = run("alone,ditto,local-affine,q-ffl,too-few")
    found = {row.way: row for row in first.rows}
    assert found["too-few"].failed == {"1": "subset"}
    for name in ("alone", "fedavg", "ditto", "local-affine", "q-ffl"):
        assert found[name].mean is not None, name
        assert found[name].worst.value <= found[name].mean.value
    assert {c.way: c.model for c in first.cells if not c.failed} == {
        "alone": "alone",
        "fedavg": "federated",
        "ditto": "personalised",
        "local-affine": "personalised",
        "q-ffl": "federated",
    }
    assert found["fedavg"].rounds == 2
    assert found["fedavg"].bytes > 0
    assert found["alone"].bytes == 0
    assert homes[0].exists(), "hospitals stay while something failed"
    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("cells/*/cell.json")}
    assert len(stamps) == 5
    second, _ = run("alone,ditto,local-affine,q-ffl", lambda _folder: None)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("cells/*/cell.json")} == stamps
    assert [r.mean for r in second.rows] == [found[r.way].mean for r in second.rows]
    assert json.loads((folder / "compare.json").read_text())["missing"] == []
    assert not homes[0].exists(), "nothing is left to be run"
    assert change(second.rows[-1].mean_change) in (folder / "compare.html").read_text("utf-8")


def test_of_one_seed_the_figure_stands_without_an_interval():
    (first, *_) = _record(seeds=(1,)).rows
    assert three(first.mean) == f"{first.mean.value:.3f}"
    other = _record(seeds=(1,)).rows[1]
    assert change(other.mean_change) == signed(other.mean_change.value)
    assert ">0</text>" not in str(drawing([first], 372.0)), "the axis holds the points, not all of 0 to 1"


@pytest.mark.parametrize(
    ("name", "least", "most"), [("demo", 100, 200), ("thousand_sites", 1, 60), ("rare_scanner", 100, 200)]
)
def test_a_usual_hospitals_patients_follow_from_the_scenario(name, least, most):
    """Also where a scenario's sites are of many sizes."""
    assert least < usual(load_scenario(HERE / f"{name}.toml")) < most
