"""Some of the sites in each round: who, how many, and what the record says of the others."""

from __future__ import annotations

from collections import Counter

import pytest

from common.checkpoints import load
from common.errors import PlanError
from server.records import RoundRecord, SiteRound
from server.survey import Roster, chosen, trained
from simulations.grid import run_in_process
from tests.toy import ToyDuties, toy_plan, toy_service

_SITES = [f"site-{n:02}" for n in range(20)]
_ROSTER = Roster(
    nodes={site: n for n, site in enumerate(_SITES)},
    weights=dict.fromkeys(_SITES, 100),
    expected=(*_SITES, "silent"),
    intake={},
)


def _round(number: int, drawn: tuple[str, ...], failed: tuple[str, ...] = ()) -> RoundRecord:
    learned = {site: SiteRound(100, 1.0, None, None, None) for site in drawn if site not in failed}
    return RoundRecord(number, 1.0, 0, 0, learned, dict.fromkeys(failed, "no-reply"), chosen=drawn)


def test_a_round_draws_the_same_sites_again_and_the_next_round_others():
    assert chosen(_ROSTER, 5, 1, 3).expected == chosen(_ROSTER, 5, 1, 3).expected
    assert chosen(_ROSTER, 5, 1, 3).expected != chosen(_ROSTER, 5, 1, 4).expected
    assert chosen(_ROSTER, 5, 1, 3).expected != chosen(_ROSTER, 5, 2, 3).expected


def test_who_cannot_train_is_never_drawn_and_only_the_drawn_weigh_in():
    drawn = chosen(_ROSTER, 5, 1, 1)
    assert set(drawn.weights) == set(drawn.expected) == set(drawn.training)
    assert all("silent" not in chosen(_ROSTER, 5, 1, round_).expected for round_ in range(1, 200))


def test_every_site_is_drawn_about_as_often():
    counts = Counter(site for n in range(1, 401) for site in chosen(_ROSTER, 5, 1, n).expected)
    # 400 rounds of 5 in 20: 100 each, standard deviation 8.7 (binomial); five of them on either side.
    assert set(counts) == set(_SITES)
    assert all(57 < count < 143 for count in counts.values())


def test_with_no_number_or_one_too_large_all_train():
    assert chosen(_ROSTER, 0, 1, 1) is _ROSTER
    assert chosen(_ROSTER, 20, 1, 1) is _ROSTER


def test_a_site_counts_as_trained_only_where_it_never_failed_a_round_it_was_drawn_for():
    rounds = [_round(1, ("a", "b")), _round(2, ("b", "c"), failed=("b",)), _round(3, ("a", "c"))]
    assert trained(rounds) == ("a", "c")


def test_a_federation_trains_some_in_each_round_and_the_sum_is_theirs_alone(tmp_path):
    services = [toy_service(tmp_path, name) for name in ("alpha", "beta", "gamma", "delta")]
    plan = toy_plan(rounds=3, least_sites=2, sites_per_round=2)
    record = run_in_process(services, plan, tmp_path / "out")
    assert [len(one.sites) for one in record.rounds] == [2, 2, 2]
    assert all(set(one.sites) == set(one.chosen) for one in record.rounds)
    assert all(not one.refused for one in record.rounds)
    # Two others alone, asked the same in their own federation, come to the same model to the bit.
    first = record.rounds[0].chosen
    again = [toy_service(tmp_path / "again", name) for name in first]
    run_in_process(again, toy_plan(rounds=1, least_sites=2), tmp_path / "one")
    run_in_process(
        [toy_service(tmp_path / "more", name) for name in ("alpha", "beta", "gamma", "delta")],
        toy_plan(rounds=1, least_sites=2, sites_per_round=2),
        tmp_path / "two",
    )
    one, two = (load(tmp_path / name / "model.safetensors").arrays for name in ("one", "two"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_a_drawn_site_that_refuses_makes_the_run_a_subset(tmp_path):
    def broken(instruction, plan):
        raise RuntimeError

    lame = ToyDuties("lame", 100)
    lame.train = broken
    services = [toy_service(tmp_path, name) for name in ("alpha", "beta")]
    services.append(toy_service(tmp_path, "lame", duties=lame))
    record = run_in_process(services, toy_plan(rounds=6, least_sites=1, sites_per_round=2), tmp_path / "out")
    drawn = [one for one in record.rounds if "lame" in one.chosen]
    assert drawn
    assert all(one.refused == {"lame": "internal"} for one in drawn)
    assert record.subset
    assert "lame" not in record.trained


@pytest.mark.parametrize(
    "wrong",
    [
        {"sites_per_round": 1, "least_sites": 2},
        {"sites_per_round": 3, "sites": ["a", "b"]},
        {"sites_per_round": 3, "least_sites": 3, "aggregation": "secure"},
    ],
)
def test_a_plan_that_draws_what_cannot_be_is_refused(wrong):
    with pytest.raises(PlanError, match="sites_per_round"):
        toy_plan(**wrong)
