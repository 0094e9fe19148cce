"""The band of chance: right by arithmetic, quiet when nothing is wrong, and not blind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from common.messages import Estimate
from server.reports.chance import (
    auroc_error,
    chance_band,
    combine,
    mean,
    released_by_formula,
    sidak,
    stratified_error,
)
from server.reports.statistics import group_rows, weak_groups
from tests.server.report_records import WEAK, auroc_estimate, draw, realistic


@pytest.mark.parametrize(("auroc", "m", "n"), [(0.7, 20, 60), (0.92, 45, 45), (0.5, 11, 200)])
def test_the_standard_error_is_the_one_of_two_normal_distributions(auroc, m, n):
    """Held against numerical integration of the bivariate normal and against simulation."""
    x = norm.ppf(auroc)
    q = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([x, x])
    expected = math.sqrt((auroc * (1 - auroc) + (m + n - 2) * (q - auroc**2)) / (m * n))
    assert auroc_error(auroc, m, n) == pytest.approx(expected, rel=1e-5)
    rng = np.random.default_rng(1)
    drawn = [auroc_estimate(draw(rng, m, n, auroc)).value for _ in range(1500)]
    assert np.std(drawn) == pytest.approx(expected, rel=0.08)


def test_a_perfect_or_empty_group_has_no_zero_error():
    assert auroc_error(1.0, 20, 20) > 0
    assert auroc_error(0.9, 0, 20) == math.inf
    assert stratified_error(0.9, [(0, 20)]) == math.inf


def test_two_hospitals_tell_more_than_one():
    one = stratified_error(0.9, [(20, 40)])
    assert stratified_error(0.9, [(20, 40), (20, 40)]) == pytest.approx(one / math.sqrt(2))


def test_sidak_of_one_group_is_the_ordinary_interval():
    assert sidak(0.05, 1) == pytest.approx(1.959964, abs=1e-5)
    assert sidak(0.05, 6) > sidak(0.05, 5)


def test_equal_estimates_combine_to_themselves_and_narrower():
    e = Estimate(0.9, 0.83, 0.95)
    both = combine([e, e], [(30, 60), (30, 60)])
    assert both.value == pytest.approx(0.9)
    assert e.low < both.low < both.value < both.high < e.high


def test_a_perfect_hospital_does_not_silence_the_others():
    """Its interval has no width; by inverse variance alone it would weigh infinitely."""
    both = combine([Estimate(1.0, 1.0, 1.0), Estimate(0.8, 0.74, 0.86)], [(11, 11), (200, 400)])
    assert both.value < 0.9


def test_the_mean_over_hospitals_weighs_each_the_same():
    value = mean([Estimate(0.8, 0.7, 0.9), Estimate(0.9, 0.89, 0.91)])
    assert value is not None
    assert value.value == pytest.approx(0.85)
    assert mean([]) is None


def _weak(rng, true, counts):
    drawn = [auroc_estimate(draw(rng, *counts, a)) for a in true]
    strata = [[counts]] * len(true)
    bands = chance_band([e.value for e in drawn], strata, scale=released_by_formula(drawn, strata))
    return [band is not None and e.value < band.low for e, band in zip(drawn, bands, strict=True)]


@pytest.mark.parametrize(("auroc", "groups", "counts"), [(0.85, 6, (27, 54)), (0.92, 4, (30, 60))])
def test_equal_groups_raise_a_false_alarm_in_at_most_one_run_of_twenty(auroc, groups, counts):
    """Monte Carlo, 600 runs: two standard errors of a true 5% are 1.8 percentage points."""
    rng = np.random.default_rng(11)
    alarms = sum(any(_weak(rng, [auroc] * groups, counts)) for _ in range(600))
    assert alarms / 600 <= 0.05 + 0.018


def test_scores_that_are_not_normal_raise_no_more_alarms():
    """Positives twice as spread as negatives: the formula alone would alarm in a tenth of the runs."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(300):
        drawn = []
        for _ in range(4):
            data = draw(rng, 30, 60, 0.85)
            raw = np.where(
                data.labels == 1, rng.normal(math.sqrt(5) * norm.ppf(0.85), 2, 90), rng.normal(0, 1, 90)
            )
            drawn.append(auroc_estimate(type(data)(raw, data.labels)))
        strata = [[(30, 60)]] * 4
        bands = chance_band([e.value for e in drawn], strata, scale=released_by_formula(drawn, strata))
        alarms += any(e.value < b.low for e, b in zip(drawn, bands, strict=True) if b)
    assert alarms / 300 <= 0.05 + 0.025


def test_a_planted_weak_group_is_found_and_nobody_else_is_blamed():
    """0.70 against 0.92 with 90 test patients each: found in nine of ten runs, others blamed in under 5%."""
    rng = np.random.default_rng(12)
    runs = [_weak(rng, [0.70, 0.92, 0.92, 0.92], (30, 60)) for _ in range(300)]
    assert np.mean([run[0] for run in runs]) >= 0.9
    assert np.mean([any(run[1:]) for run in runs]) <= 0.05


def test_one_weak_group_does_not_hide_another():
    """With both in the centre the milder one would pass; the second step takes the worst one out."""
    aurocs = [0.60, 0.80, 0.95, 0.95]
    counts = [[(60, 120)]] * 4
    bands = chance_band(aurocs, counts)
    assert [b is not None and a < b.low for a, b in zip(aurocs, bands, strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_lonely_group_has_no_band():
    assert chance_band([0.9], [[(30, 60)]]) == [None]


@pytest.mark.parametrize("seed", range(5))
def test_the_planted_weak_scanner_is_named_in_every_seed(seed):
    """From a record as a run leaves it; and no other manufacturer is named."""
    named = [row.name for row in weak_groups(realistic(seed)) if row.family == "manufacturer"]
    assert named == [WEAK]


def test_a_manufacturer_at_two_hospitals_counts_the_patients_of_both():
    row = next(r for r in group_rows(realistic()) if r.name == "Aster Imaging")
    assert row.sites == ("altona", "delft")
    assert row.patients == 260
