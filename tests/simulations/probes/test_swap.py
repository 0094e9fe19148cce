"""The counterfactual swap: it fires where the machine tells who is ill and the score listens, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from common.errors import DataError
from simulations.probes.contract import Counterfactual
from simulations.probes.swap import ALL, moves, swap, weighted_area
from tests.simulations.probes.made import swapped

SEEDS = 300


def alarms(link: float, shift: float, seeds: int = SEEDS, deals: int = 199) -> int:
    found = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        probes = swap(swapped(rng, link, shift, patients=80), rng, deals, resamples=0)
        found += any(probe.found(0.05) for probe in probes)
    return found


def test_machines_that_differ_as_much_as_they_like_raise_no_more_than_five_per_cent_where_nobody_is_linked():
    assert binom.sf(alarms(link=0.0, shift=3.0) - 1, SEEDS, 0.05) > 1e-3


def test_a_link_that_the_score_does_not_listen_to_raises_none():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cohort = swapped(rng, link=0.8, moves=0.0, noise=0.0)
        for probe in swap(cohort, rng, 199, resamples=0):
            assert probe.p == 1.0
            assert probe.figure.value == pytest.approx(0.0, abs=1e-9)


def test_a_link_that_the_score_listens_to_is_found_in_either_direction():
    for link, sign in ((0.7, 1), (-0.7, -1)):
        rng = np.random.default_rng(1)
        whole = swap(swapped(rng, link, 1.5, noise=0.3), rng)[0]
        assert whole.where == ALL
        assert whole.found(0.05)
        assert np.sign(whole.figure.value) == sign
        assert whole.before is not None
        assert whole.after is not None
        assert whole.figure.value == pytest.approx(whole.before.value - whole.after.value)
        assert not whole.chance.low <= whole.figure.value <= whole.chance.high


def test_the_hospital_where_it_happens_is_named():
    rng = np.random.default_rng(5)
    linked, free = (swapped(rng, link, 1.5, noise=0.3) for link in (0.8, 0.0))
    both = Counterfactual(
        np.concatenate([linked.logits, free.logits]),
        linked.machines,
        np.concatenate([linked.truth, free.truth]),
        np.repeat(["linked", "free"], 240),
        np.concatenate([linked.own, free.own]),
    )
    found = {probe.where: probe.found(0.05) for probe in swap(both, rng)}
    assert found["linked"]
    assert not found["free"]


def test_the_mean_over_deals_is_the_area_of_all_pairs():
    """Counted out: every ill on every machine against every healthy on every machine."""
    rng = np.random.default_rng(3)
    cohort = swapped(rng, 0.5, 1.0, patients=40)
    share = np.bincount(cohort.own, minlength=2) / 40
    total = 0.0
    for m, n in product(range(2), repeat=2):
        ill, healthy = cohort.logits[cohort.truth, m], cohort.logits[~cohort.truth, n]
        total += share[m] * share[n] * float((ill[:, None] > healthy[None]).mean())
    after = swap(cohort, rng, 19, resamples=5)[0].after
    assert after is not None
    assert after.value == pytest.approx(total)


def test_ties_count_one_half():
    ones = np.ones(2)
    assert weighted_area((np.array([0.0, 1.0]), ones), (np.array([0.0, 1.0]), ones)) == 0.5
    assert np.isnan(weighted_area((np.array([0.0]), np.zeros(1)), (np.array([0.0]), np.ones(1))))


def test_one_machine_or_few_patients_are_not_judged():
    rng = np.random.default_rng(0)
    cohort = swapped(rng, 0.5, 1.0)
    assert swap(replace(cohort, own=np.zeros(240, dtype=np.int64)), rng) == ()
    assert swap(cohort.of(np.arange(240) < 8), rng) == ()


def test_moves_are_of_the_same_patients_and_of_every_pair():
    cohort = swapped(np.random.default_rng(2), 0.0, 1.0, noise=0.0)
    found = {(p.source, p.subject): p.figure for p in moves(cohort)}
    assert set(found) == {("Aster", "Dorado"), ("Dorado", "Aster")}
    assert found["Aster", "Dorado"].low > 0.1
    assert found["Aster", "Dorado"].value == pytest.approx(-found["Dorado", "Aster"].value)
    assert not any(p.judged for p in moves(cohort))


def test_the_same_generator_gives_the_same_records():
    cohort = swapped(np.random.default_rng(2), 0.5, 1.0)
    assert swap(cohort, np.random.default_rng(7)) == swap(cohort, np.random.default_rng(7))
    assert swap(cohort, np.random.default_rng(7)) != swap(cohort, np.random.default_rng(8))


def test_parts_that_do_not_belong_together_are_refused():
    cohort = swapped(np.random.default_rng(2), 0.5, 1.0)
    with pytest.raises(DataError):
        replace(cohort, own=cohort.own[:-1])
