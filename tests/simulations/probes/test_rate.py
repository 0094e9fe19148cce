"""The short form of `consilium-sim probe-rate`: bodies dealt to federations, alarms counted, one mutant that cries wolf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError, InputError
from simulations.hospitals import HospitalSpec
from simulations.probes.bank import MACHINES, SIDE, Bank, deal, kept, make
from simulations.probes.told import MARKS, markdown, put
from simulations.probes.trials import CASES, NULL, Trial, promised, rates, trial, trials
from simulations.scenario import HERE, load_scenario
from simulations.sites import virtual_sites


def painted(patients: int = 1500, seed: int = 0) -> Bank:
    """A bank without physics: a finding in the middle, every machine with a shade, a border and a grain of its own."""
    rng = np.random.default_rng(seed)
    truth = np.arange(patients) < 0.45 * patients
    body = rng.normal(size=(patients, 1, SIDE, SIDE))
    body[truth, :, 12:20, 12:20] += 0.2
    shade = np.linspace(-0.5, 0.5, len(MACHINES))[None, :, None, None] * np.ones((SIDE, SIDE))
    grain = (
        rng.normal(size=(patients, len(MACHINES), SIDE, SIDE))
        * np.linspace(0, 1, len(MACHINES))[:, None, None]
    )
    return Bank((body + shade + grain).astype(np.float16), truth, np.arange(patients) % 2 == 0)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return painted()


@pytest.mark.parametrize("case", ["balanced", "scanner", "marker"])
def test_alarms_are_raised_where_something_was_planted_and_rarely_elsewhere(bank: Bank, case: str):
    rows = rates(trials(bank, [(case, 8)]))
    for row in rows:
        if row.planted:
            assert row.alarms >= 4, row
        elif case in NULL:
            # More than 3 of 8 at a rate of 5% happens once in 2,700.
            assert row.alarms <= 3, row


def test_a_trial_is_replayed_and_differs_with_its_seed(bank: Bank):
    assert trial(bank, "scanner", 3) == trial(bank, "scanner", 3)
    assert trial(bank, "scanner", 3) != trial(bank, "scanner", 4)


def test_trials_go_on_where_they_stopped(bank: Bank, tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    first = trials(bank, [("balanced", 1)], path)
    again = trials(bank, [("balanced", 2)], path)
    assert again[:1] == first
    assert len(path.read_text().splitlines()) == 2


def test_bodies_are_dealt_once_and_shares_are_the_scenario_s(bank: Bank):
    specs = virtual_sites(load_scenario(HERE / "confounded.toml").site, 1)
    dealt = deal(bank, specs, 120, np.random.default_rng(1))
    assert len(set(dealt.body.tolist())) == len(dealt.body) == 120 * len(specs)
    truth = bank.truth[dealt.body]
    usual, mobile = dealt.sites != "reversed", dealt.machine == MACHINES.index("dorado-mobile")
    assert truth[usual & mobile].mean() > 0.6
    assert truth[usual & ~mobile].mean() < 0.2
    assert truth[~usual & mobile].mean() < 0.2
    for site in np.unique(dealt.sites):
        assert dealt.train[dealt.sites == site].sum() == 60


def test_a_bank_too_small_and_hospitals_without_population_are_refused(bank: Bank):
    specs = virtual_sites(load_scenario(HERE / "balanced.toml").site, 1)
    with pytest.raises(DataError, match="too few"):
        deal(bank, specs, 400, np.random.default_rng(1))
    bare = HospitalSpec("bare", "Bare", 20, 0.5, {0: {"aster-dr": 1.0}, 1: {"aster-dr": 1.0}}, {})
    with pytest.raises(DataError, match="population"):
        deal(bank, [bare], 10, np.random.default_rng(1))


def test_a_bank_is_rendered_once_and_read_again(tmp_path: Path):
    path = tmp_path / "bank.npz"
    seen: list[int] = []
    first = kept(path, 4, 1, lambda done, _all: seen.append(done))
    again = kept(path, 4, 1, lambda done, _all: seen.append(done))
    assert seen == [1, 2, 3, 4]
    np.testing.assert_array_equal(first.images, again.images)
    assert first.images.shape == (4, len(MACHINES), SIDE, SIDE)
    assert not np.array_equal(make(4, 2).images, first.images)


def alarms(case: str, count: int, *names: str) -> list[Trial]:
    return [Trial(case, seed, names if seed < count else (), 0.8, {}) for seed in range(100)]


def test_the_promise_is_broken_by_wolf_cries_and_by_blindness():
    assert promised(rates(alarms("balanced", 5, "swap")))
    assert not promised(rates(alarms("balanced", 15, "swap")))
    assert promised(rates(alarms("scanner", 90, "swap", "dependence")))
    assert not promised(rates(alarms("scanner", 30, "swap", "dependence")))
    assert set(CASES) > set(NULL)


def test_the_table_stands_between_its_marks(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    rows = rates(alarms("balanced", 5, "swap"))
    put(page, rows)
    assert "old" not in page.read_text()
    assert markdown(rows) in page.read_text()
    assert page.read_text().endswith("after\n")
    page.write_text("nothing")
    with pytest.raises(InputError):
        put(page, rows)
