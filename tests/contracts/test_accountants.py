"""What every accountant of privacy must keep: laws, published values with their sources, and an attacker.

A published value is an upper bound by the accountant of its day unless it says otherwise; the tight bound
must not exceed it, and must not lie further below than the looser accountant explains.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from common import accountants, accounting
from common.accounting import Accountants, DpEventSpec, Schedule, calibrate, compose, epsilon, noise_for
from common.errors import PrivacyRefused

STEP = 1e-3
"""Monotone up to this share: neighbouring histories may be counted on grids of different width."""

QS, SIGMAS, STEPS = st.floats(0.005, 1.0), st.floats(0.6, 30), st.integers(1, 400)
DELTAS = st.sampled_from([1e-7, 1e-5, 1e-3])
COSTS = {
    "tight": accountants.tight,
    "renyi": accountants.renyi,
    "composed": lambda history, delta: compose([DpEventSpec(*part) for part in history], delta),
}


@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=8, deadline=None)
@given(setting=st.tuples(QS, SIGMAS, STEPS), delta=DELTAS, more=st.floats(1.01, 2))
def test_more_steps_and_more_sampling_cost_more_and_more_noise_and_more_delta_less(
    name, setting, delta, more
):
    cost, (q, sigma, steps) = COSTS[name], setting
    base = cost(((q, sigma, steps),), delta)
    least, most = base * (1 - STEP) - 1e-9, base * (1 + STEP) + 1e-9
    assert cost(((q, sigma, math.ceil(steps * more)),), delta) >= least
    assert cost(((min(1.0, q * more), sigma, steps),), delta) >= least
    assert cost(((q, sigma * more, steps),), delta) <= most
    assert cost(((q, sigma, steps),), min(0.5, delta * more)) <= most
    assert cost(((q, sigma, steps), (q, sigma * more, 1)), delta) >= least, "one kind more"


@settings(max_examples=10, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from([(0.25, 2.0), (0.1, 1.5), (1.0, 9.0)]), st.integers(0, 9)), min_size=1
    ),
    order=st.randoms(),
)
def test_order_and_grouping_change_nothing_to_the_last_bit(pieces, order):
    """Rounds cut into steps, runs interleaved, events of no steps: the same number, not a similar one."""
    events = [DpEventSpec(q, sigma, steps) for (q, sigma), steps in pieces]
    single = [DpEventSpec(e.sampling_rate, e.noise_multiplier, 1) for e in events for _ in range(e.steps)]
    order.shuffle(single)
    assert compose(single, 1e-5) == compose(events, 1e-5) == compose(events[::-1], 1e-5)


def test_studies_add_up_to_less_than_their_sum_and_to_more_than_the_worst():
    """Mixed rates and noises of two runs, each direction of the inequality of composition."""
    one, two = DpEventSpec(0.25, 2.0, 40), DpEventSpec(0.05, 0.9, 200)
    apart = [compose([event], 5e-6) for event in (one, two)]
    assert max(compose([event], 1e-5) for event in (one, two)) < compose([one, two], 1e-5) < sum(apart)


TUTORIAL = 256 / 60_000
PUBLISHED = {
    # Tight values, to be met: (events, delta, value, least share of it, largest share of it)
    # Koskela, Jalko, Honkela 2020, Fourier accountant: DPBayes/PLD-Accountant, tests/test_compute_delta.py,
    # get_delta_R(target_eps, sigma, q, ncomp) = delta; so epsilon at that delta is target_eps.
    "koskela-2020-a": ([(0.01, 2.0, 10_000)], 0.010224911209191894, 1.0, 0.9999, 1.001),
    "koskela-2020-b": ([(0.01, 2.0, 10_000)], 0.022850339595771204, 0.8, 0.9999, 1.001),
    "koskela-2020-c": ([(0.02, 2.0, 10_000)], 0.14991732969314892, 1.0, 0.9999, 1.001),
    "koskela-2020-d": ([(0.01, 1.0, 10_000)], 0.2391763947364977, 1.0, 0.9999, 1.001),
    # tensorflow/privacy, compute_dp_sgd_privacy_test.py, PLD, 1.2 epochs of Poisson samples at 1e-2.
    "tf-privacy-pld-sampled": ([(1e-2, 0.7, 120)], 1e-5, 2.4612381, 0.999, 1.003),
    # The same file, PLD, no sampling: 1.2 epochs are two releases.
    "tf-privacy-pld-plain": ([(1.0, 0.7, 2)], 1e-5, 10.1224946, 0.9999, 1.001),
    # The same file, privacy statement: 10,000 examples, batches of 64, 5 epochs (782 steps); noise 2 with
    # "microbatching", which doubles the sensitivity: sigma = 1.
    "tf-privacy-statement": ([(64 / 10_000, 1.0, 782)], 1e-6, 1.199, 0.999, 1.001),
    # Looser accountants, not to be exceeded.
    # Abadi et al. 2016, section 5.1, moments accountant: q = 0.01, sigma = 4, 10,000 steps.
    "abadi-2016": ([(0.01, 4.0, 10_000)], 1e-5, 1.26, 0.7, 1.0),
    # Bu et al. 2020, figure 4, moments accountant: sigma = 1.3, 20 epochs of MNIST; sigma = 0.7, 70 epochs.
    "bu-2020-a": ([(TUTORIAL, 1.3, 20 * 234)], 1e-5, 1.34, 0.7, 1.0),
    "bu-2020-b": ([(TUTORIAL, 0.7, 70 * 234)], 1e-5, 8.68, 0.7, 1.0),
    # tensorflow/privacy, tutorials/README.md, table of MNIST settings, RDP.
    "tf-tutorial-a": ([(TUTORIAL, 1.12, 60 * 234)], 1e-5, 2.92, 0.75, 1.0),
    "tf-tutorial-b": ([(TUTORIAL, 0.6, 30 * 234)], 1e-5, 9.74, 0.6, 1.0),
    "tf-tutorial-c": ([(TUTORIAL, 1.2, 10 * 234)], 1e-5, 1.20, 0.6, 1.0),
    # pytorch/opacus, examples/mnist_README.md, RDP, sample rate 0.004.
    "opacus-a": ([(0.004, 0.7, 45 * 250)], 1e-5, 7.10, 0.7, 1.0),
    "opacus-b": ([(0.004, 1.1, 60 * 250)], 1e-5, 3.01, 0.75, 1.0),
    "opacus-c": ([(0.004, 1.3, 15 * 250)], 1e-5, 1.19, 0.6, 1.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    parts, delta, value, least, most = PUBLISHED[name]
    assert least * value <= compose([DpEventSpec(*part) for part in parts], delta) <= most * value


# Gopi, Lee, Wutschitz 2021, the PRV accountant: its upper bounds at delta = 1e-6, computed with their code
# (microsoft/prv_accountant, error at most 0.01) and printed in pytorch/opacus, opacus/tests/prv_accountant.py.
PRV = {
    (0.001, 0.8, 100): 0.270403364,
    (0.001, 1.5, 1000): 0.099820660,
    (0.001, 3.0, 50_000): 0.309694161,
    (0.05, 0.8, 100): 6.741051939,
    (0.05, 1.5, 100): 1.953853136,
    (0.05, 2.0, 1000): 4.172799867,
    (0.05, 3.0, 20_000): 13.961114699,
    (0.05, 1.5, 50_000): 73.190176724,
    (0.2, 0.8, 100): 24.333664178,
    (0.2, 1.5, 100): 8.498977859,
    (0.2, 3.0, 100): 3.381220510,
}


@pytest.mark.parametrize("part", PRV)
def test_the_published_bounds_of_gopi_lee_and_wutschitz(part):
    """Theirs is an estimate with its error of 0.01 on top: ours is their estimate, to a thousandth and 0.01%."""
    estimate = PRV[part] - 0.01
    assert compose([DpEventSpec(*part)], 1e-6) == pytest.approx(estimate, abs=0.0012 + 1e-4 * estimate)


RENYI = {
    # tensorflow/privacy, compute_dp_sgd_privacy_test.py, RDP on the same two settings, and the statement.
    "tf-privacy-rdp-sampled": ((1e-2, 0.7, 120), 1e-5, 3.2392676),
    "tf-privacy-rdp-plain": ((1.0, 0.7, 2), 1e-5, 10.8602036),
    "tf-privacy-statement": ((64 / 10_000, 1.0, 782), 1e-6, 1.616),
}


@pytest.mark.parametrize("name", RENYI)
def test_the_renyi_bound_is_the_published_one(name):
    """Ours knows whole orders only, so it may lie a little above; below, it would not be the same bound."""
    part, delta, value = RENYI[name]
    assert value * 0.9995 <= accountants.renyi((part,), delta) <= value * 1.05


def test_the_renyi_divergence_of_a_gaussian_is_the_formula():
    """Mironov 2017, proposition 7: alpha / (2 sigma^2) a step, so epsilon follows by hand for every order."""
    found = np.array(accountants._renyi_step(1.0, 3.0))
    assert np.allclose(found, np.array(accountants.RDP_ORDERS) / 18)


# ---- an attacker ------------------------------------------------------------------------------------------

SAMPLES = 200_000
SETTINGS = [(0.25, 1.2, 10), (0.5, 2.0, 20), (1.0, 2.0, 4), (0.1, 0.8, 30)]
DELTA = 1e-2
"""Large enough that 200,000 samples see it."""


def least_delta(q, sigma, steps, claimed, *, added):
    """What the best test achieves, from below with 99.99% confidence: Neyman and Pearson, Clopper and Pearson.

    `P(loss > claimed) - e^claimed P(loss > claimed)` of one world against the other, whichever patient was
    added or removed; the two chances are counted on samples of their own.
    """
    rng = np.random.default_rng(int(1e6 * q + 1e3 * sigma) + steps + added)
    drawn = rng.random((SAMPLES, steps)) < q
    without = rng.normal(0, sigma, (SAMPLES, steps))
    with_patient = rng.normal(0, sigma, (SAMPLES, steps)) + drawn
    first, second = (with_patient, without) if added else (without, with_patient)
    sign = 1 if added else -1

    def hits(x):
        ratio = np.log1p(q * np.expm1((2 * x - 1) / (2 * sigma**2))).sum(axis=1)
        return int((sign * ratio > claimed).sum())

    yes, no = hits(first), hits(second)
    low = beta.ppf(5e-5, yes, SAMPLES - yes + 1) if yes else 0.0
    high = beta.ppf(1 - 5e-5, no + 1, SAMPLES - no)
    return low - math.exp(claimed) * high


@pytest.mark.parametrize("added", [True, False], ids=["added", "removed"])
@pytest.mark.parametrize(("q", "sigma", "steps"), SETTINGS)
def test_no_claim_is_below_what_a_simulated_attacker_proves(q, sigma, steps, added):
    assert least_delta(q, sigma, steps, epsilon(q, sigma, steps, DELTA), added=added) <= DELTA


@pytest.mark.parametrize(("q", "sigma", "steps"), SETTINGS)
def test_the_attacker_catches_noise_that_is_half_of_what_was_claimed(q, sigma, steps):
    """The power of the test above: a site that draws half the noise is found out."""
    claimed = epsilon(q, sigma, steps, DELTA)
    assert least_delta(q, sigma / 2, steps, claimed, added=True) > DELTA


@settings(max_examples=15, deadline=None)
@given(q=QS, sigma=SIGMAS, steps=STEPS, delta=DELTAS)
def test_attacker_tight_and_loose_lie_in_this_order(q, sigma, steps, delta):
    history = ((q, sigma, steps),)
    claimed = accountants.tight(history, delta)
    assert claimed <= accountants.renyi(history, delta) * 1.0001
    assert accountants.attack(history, claimed) <= delta * 1.0001


@pytest.mark.parametrize(("q", "sigma", "steps"), SETTINGS)
def test_the_closed_form_attacker_is_the_simulated_one(q, sigma, steps):
    """He sees only the sum; on the same sums, his formula is what counting gives."""
    rng, claimed = np.random.default_rng(3), epsilon(q, sigma, steps, DELTA) * 0.7
    drawn = (rng.random((SAMPLES, steps)) < q).sum(axis=1)
    spread = sigma * math.sqrt(steps)
    worlds = rng.normal(0, spread, SAMPLES) + drawn, rng.normal(0, spread, SAMPLES)
    best = max(
        (worlds[0] > cut).mean() - math.exp(claimed) * (worlds[1] > cut).mean()
        for cut in np.linspace(0, steps + 3 * spread, 400)
    )
    assert accountants.attack(((q, sigma, steps),), claimed) == pytest.approx(best, rel=0.1)


def test_the_worse_of_adding_and_removing_is_taken():
    """dp-accounting keeps a loss distribution for each; under sampling removing a patient costs more here."""
    total = accountants._composed(0.1, 0.8, 30, 1e-3)
    both = [pmf.get_epsilon_for_delta(1e-5) for pmf in (total._pmf_remove, total._pmf_add)]
    assert abs(both[0] - both[1]) > 0.1, "the directions differ, so it matters which is taken"
    assert accountants.tight(((0.1, 0.8, 30),), 1e-5) == pytest.approx(max(both), rel=0.01)


# ---- disagreement -----------------------------------------------------------------------------------------

WRONG = {
    "half the noise is seen": Accountants(tight=lambda h, d: accountants.tight(_noisier(h, 0.5), d)),
    "twice the noise is seen": Accountants(tight=lambda h, d: accountants.tight(_noisier(h, 2.0), d)),
    "one step is counted": Accountants(tight=lambda h, d: accountants.tight(((*h[0][:2], 1),), d)),
    "sampling is counted twice": Accountants(
        tight=lambda h, d: accountants.tight(((h[0][0] ** 2, *h[0][1:]),), d)
    ),
    "the loose bound is half": Accountants(loose=lambda h, d: accountants.renyi(h, d) / 2),
    "not a number": Accountants(tight=lambda _h, _d: math.nan),
    "nothing": Accountants(tight=lambda _h, _d: 0.0),
}


def _noisier(history, factor):
    return tuple((q, sigma * factor, steps) for q, sigma, steps in history)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("event", [DpEventSpec(0.25, 2.0, 40), DpEventSpec(0.9, 4.2, 50)])
def test_a_wrong_accountant_at_the_port_is_found_out(name, event):
    with pytest.raises(PrivacyRefused) as refusal:
        compose([event], 1e-5, WRONG[name])
    assert refusal.value.code == "accounting-disagree"


@pytest.mark.parametrize("part", [(0.001, 20.0, 10_000), (1.0, 3000.0, 10_000), (1e-4, 5.0, 1_000_000)])
def test_many_quiet_steps_are_not_rounded_up_into_a_disagreement(part):
    """A step that costs far less than a cell of the grid used to be charged a whole cell."""
    found = compose([DpEventSpec(*part)], 1e-6)
    assert found <= accountants.renyi((part,), 1e-6)


# ---- calibration, speed, repeatability --------------------------------------------------------------------


def test_spare_rounds_are_paid_for_from_the_start():
    plain, spare = Schedule(0.25, 4, 10), Schedule(0.25, 4, 8, spare_rounds=2)
    assert noise_for(5.0, 1e-5, plain) == noise_for(5.0, 1e-5, spare) == calibrate(5.0, 1e-5, 0.25, 40)
    assert noise_for(5.0, 1e-5, Schedule(0.25, 4, 8)) < noise_for(5.0, 1e-5, spare)


def _cost(rounds: int) -> float:
    """Processor seconds of composing what was never asked before, at best of three."""
    tries = []
    for attempt in range(3):
        start = time.process_time()
        compose([DpEventSpec(0.25, 9.0 + attempt / 64, 4 * rounds), DpEventSpec(0.1, 2.0, 40)], 1e-5)
        tries.append(time.process_time() - start)
    return min(tries)


def test_the_thousandth_round_does_not_cost_a_thousand_times_the_first():
    """The ledger composes anew at every charge."""
    assert _cost(1000) < 50 * max(_cost(2), 0.002)


def test_every_process_comes_to_the_same_number():
    """Two hospitals, or one before and after a restart, must agree to the last bit on what was spent."""
    asked = [(0.25, 2.0, 40), (0.01, 1.1, 500), (1.0, 4.2, 50)]
    program = (
        "import json\nfrom common.accounting import DpEventSpec, calibrate, compose\n"
        f"asked = {asked}\nevents = [DpEventSpec(*part) for part in asked]\n"
        "print(json.dumps([*(compose([e], 1e-5) for e in events), compose(events, 1e-5), calibrate(3.0, 1e-5, 0.2, 20)]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    events = [DpEventSpec(*part) for part in asked]
    here = [*(compose([e], 1e-5) for e in events), compose(events, 1e-5), calibrate(3.0, 1e-5, 0.2, 20)]
    assert json.loads(run.stdout) == here


def test_rounding_never_makes_a_small_delta_cheaper_than_it_is():
    """Balle and Wang 2018, theorem 8, exactly: Fourier rounding used to win below delta = 1e-11."""
    from tests.common.test_accounting import exact_gaussian_epsilon  # noqa: PLC0415

    for delta in (accountants.LEAST_DELTA, 1e-9, 1e-5):
        for sigma, steps in ((3.9, 50), (100.0, 10_000), (3.0, 400)):
            exact = exact_gaussian_epsilon(sigma, steps, delta)
            assert exact <= accounting.epsilon(1.0, sigma, steps, delta) <= exact * 1.005
