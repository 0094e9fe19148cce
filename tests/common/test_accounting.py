"""Is epsilon what it is said to be? Against closed forms, published figures and a simulated attack."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from common import accounting
from common.accounting import DpEventSpec, calibrate, compose, epsilon, rdp_epsilon
from common.errors import PrivacyRefused


def exact_gaussian_epsilon(sigma: float, steps: int, delta: float) -> float:
    """Balle and Wang 2018, theorem 8: T Gaussian steps are one with sigma / sqrt(T)."""
    s = sigma / math.sqrt(steps)

    def gap(e: float) -> float:
        return norm.cdf(0.5 / s - e * s) - math.exp(e) * norm.cdf(-0.5 / s - e * s) - delta

    return brentq(gap, 0.0, 200.0)


@pytest.mark.parametrize(("sigma", "steps"), [(3.9, 50), (10.0, 50), (1.0, 1), (20.0, 1000)])
def test_without_subsampling_the_closed_form_is_met_from_above(sigma, steps):
    exact = exact_gaussian_epsilon(sigma, steps, 1e-5)
    ours = epsilon(1.0, sigma, steps, 1e-5)
    assert exact - 1e-9 <= ours <= exact * 1.002


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.25, 1.2, 10), (0.5, 2.0, 20), (1.0, 2.0, 4)])
def test_never_below_what_an_attacker_finds_by_monte_carlo(q, sigma, steps):
    """The best test between the two worlds, simulated: its delta at our epsilon must not exceed delta."""
    rng, n, delta = np.random.default_rng(7), 200_000, 1e-2
    x = rng.normal(0, sigma, (n, steps)) + (rng.random((n, steps)) < q)
    loss = np.log1p(q * np.expm1((2 * x - 1) / (2 * sigma**2))).sum(axis=1)
    e = epsilon(q, sigma, steps, delta)
    found = np.maximum(0, -np.expm1(e - loss))
    error = found.std() / math.sqrt(n)
    assert found.mean() <= delta + 4 * error
    assert found.mean() >= 0.9 * delta - 4 * error, "the bound is far from tight"


@pytest.mark.parametrize(("q", "steps"), [(0.25, 40), (0.5, 12), (1.0, 50), (0.01, 5000)])
@pytest.mark.parametrize("target", [1.0, 8.0])
def test_calibrated_noise_is_enough_and_a_thousandth_less_is_not(q, steps, target):
    sigma = calibrate(target, 1e-5, q, steps)
    assert epsilon(q, sigma, steps, 1e-5) <= target
    assert epsilon(q, sigma - 0.001, steps, 1e-5) > target
    assert sigma == round(sigma, 3)


def test_nothing_costs_nothing_and_a_non_private_release_costs_everything():
    assert compose([], 1e-5) == 0.0
    assert compose([DpEventSpec(0.25, 2.0, 0)], 1e-5) == 0.0
    assert compose([DpEventSpec(0.25, 2.0, 4), DpEventSpec(1.0, 0.0, 1)], 1e-5) == math.inf


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.25, 1.235, 40), (1.0, 4.2, 50), (0.01, 1.1, 6000)])
def test_renyi_bound_lies_above_as_its_theory_says(q, sigma, steps):
    pld, rdp = epsilon(q, sigma, steps, 1e-5), rdp_epsilon([DpEventSpec(q, sigma, steps)], 1e-5)
    assert pld < rdp < 1.5 * pld


def test_accountants_that_contradict_each_other_are_refused():
    history, delta = ((0.25, 2.0, 40),), 1e-5
    accounting.cross_check(history, delta, 3.96, 4.37)
    for pld, rdp in ((4.40, 4.37), (math.nan, 4.37), (3.96, math.nan), (3.5, 4.37)):
        with pytest.raises(PrivacyRefused) as refusal:
            accounting.cross_check(history, delta, pld, rdp)
        assert refusal.value.code == "accounting-disagree"


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta"),
    [(0.0, 1, 1, 1e-5), (1.1, 1, 1, 1e-5), (0.5, -1, 1, 1e-5), (0.5, 1, -1, 1e-5), (0.5, 1, 1, 0.0),
     (0.5, 1, 1, 1.0), (0.5, 1, 1, 1e-11), (0.5, 1e-3, 1, 1e-5), (float("nan"), 1, 1, 1e-5)],
)  # fmt: skip
def test_values_outside_their_domain_are_refused_by_name(q, sigma, steps, delta):
    with pytest.raises(PrivacyRefused) as refusal:
        epsilon(q, sigma, steps, delta)
    assert refusal.value.code == "accounting-input"


def test_a_budget_no_noise_can_meet_is_refused():
    with pytest.raises(PrivacyRefused) as refusal:
        calibrate(1e-5, 1e-9, 1.0, 10_000)
    assert refusal.value.code == "accounting-calibration"
