"""`[[site]]`: scenarios that differ in one thing each, hospitals drawn alike, and hospitals that do not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import DataError, InputError, PlanError
from simulations.arms import run_arms
from simulations.board import board
from simulations.crew import crew
from simulations.prepare import passing, prepare
from simulations.scenario import HERE, load_scenario
from simulations.sites import virtual_sites

SHIPPED = sorted(path.stem for path in HERE.glob("*.toml") if "[[site]]" in path.read_text(encoding="utf-8"))
HEAD = 'base = "demo"\n[scenario]\nname = "own"\narms = ["federated"]\n'
SITE = '[[site]]\nname = "{0}"\npatients = {1}\nprevalence = 0.5\nscanners = {{ aster-dr = 1 }}\n{2}\n'


def scenario_of(folder: Path, *sites: str, head: str = HEAD):
    path = folder / "own.toml"
    path.write_text(head + "".join(sites), encoding="utf-8")
    return load_scenario(path)


def test_every_kind_of_trouble_is_shipped():
    assert set(SHIPPED) == {
        "balanced",
        "confounded",
        "drifting_scanner",
        "drop_outs",
        "hundred_sites",
        "label_shift",
        "paediatric",
        "rare_scanner",
        "replaced_scanner",
        "swapped_labels",
        "thousand_sites",
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_names_itself_and_can_be_drawn(name):
    scenario = load_scenario(HERE / f"{name}.toml")
    assert scenario.scenario.name == name.replace("_", "-")
    specs = virtual_sites(scenario.site, scenario.scenario.seed)
    assert len({spec.name for spec in specs}) == len(specs)
    assert all(spec.population is not None for spec in specs)


def test_copies_differ_and_are_drawn_again_alike(tmp_path):
    many = SITE.format("many", "[20, 60]", "copies = 50\none_scanner = true").replace(
        "{ aster-dr = 1 }", "{ aster-dr = 1, cygnus-dr = 1 }"
    )
    sites = scenario_of(tmp_path, many).site
    one, two = virtual_sites(sites, 1), virtual_sites(sites, 1)
    assert one == two
    assert one != virtual_sites(sites, 2)
    sizes = {spec.patients for spec in one}
    assert min(sizes) >= 20
    assert max(sizes) <= 60
    assert len(sizes) > 10
    machines = [spec.population.machines() for spec in one if spec.population]
    assert {len(names) for names in machines} == {1}
    assert set().union(*machines) == {"aster-dr", "cygnus-dr"}


def test_a_scenario_changes_its_base_table_by_table(tmp_path):
    own = scenario_of(tmp_path, SITE.format("a", 20, ""), SITE.format("b", 20, ""))
    base = load_scenario(HERE / "demo.toml")
    assert own.scenario.arms == ("federated",)
    assert own.plan_for("federated").digest == base.plan_for("federated").digest


def test_a_base_may_have_a_base_and_none_may_lead_back_to_itself(tmp_path):
    own = scenario_of(tmp_path, SITE.format("a", 20, ""), SITE.format("b", 20, ""))
    (tmp_path / "further.toml").write_text('base = "own"\n[scenario]\nname = "further"\n', encoding="utf-8")
    further = load_scenario(tmp_path / "further.toml")
    assert further.scenario.name == "further"
    assert further.site == own.site
    assert further.plan == own.plan
    (tmp_path / "one.toml").write_text('base = "two"\n', encoding="utf-8")
    (tmp_path / "two.toml").write_text('base = "one"\n', encoding="utf-8")
    with pytest.raises(InputError, match="one is based on it in turn"):
        load_scenario(tmp_path / "one.toml")
    (tmp_path / "three.toml").write_text('base = "four"\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"its base four is not there\. .*confounded"):
        load_scenario(tmp_path / "three.toml")


@pytest.mark.parametrize(
    ("sites", "error"),
    [
        ((SITE.format("a", 20, ""), SITE.format("a", 20, "")), DataError),
        ((SITE.format("a", 20, ""),), DataError),
        ((SITE.format("a", "[60, 20]", ""), SITE.format("b", 20, "")), DataError),
        ((SITE.format("a", 20, "colour = 1"),), PlanError),
        ((SITE.format("a", 20, "ages = { middle = 3 }"),), PlanError),
        ((SITE.format("a", 2, ""),), PlanError),
    ],
)
def test_mistakes_are_named(tmp_path, sites, error):
    with pytest.raises(error):
        virtual_sites(scenario_of(tmp_path, *sites).site, 1)


def test_a_hospital_that_is_away_is_missed_in_those_rounds_and_no_others(tmp_path):
    """Rounds run for real, in process."""
    own = scenario_of(
        tmp_path,
        *(SITE.format(name, 40, "") for name in ("ash", "beech")),
        SITE.format("cherry", 40, "away = [2]"),
        head=HEAD + "[plan.federation]\nrounds = 3\n",
    )
    with passing(tmp_path / "run"), board() as bars, crew(bars, 2) as hands:
        federation = prepare(own, tmp_path / "run", hands)
        record = run_arms(own, federation, tmp_path, hands)["federated"].federation
    assert record is not None
    trained = {one.round: set(one.sites) for one in record.rounds}
    everybody = {"ash", "beech", "cherry"}
    assert trained == {1: everybody, 2: everybody - {"cherry"}, 3: everybody}
    assert record.rounds[1].refused == {"cherry": "no-reply"}
    assert set(record.sites) == everybody
