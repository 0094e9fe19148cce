"""Each method against its paper: the formula by hand, and the trend it was written for, on problems with known answers.

Sites are quadratics, `F_k(w) = sum(a_k * (w - t_k)^2) / 2`, learned by the code that hospitals learn with
(`client.training.Descent`, `client.methods`), and put together by the code that the server runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from client.methods.contract import Given, Plain
from client.methods.scaffold import Scaffold as SiteScaffold
from client.training import Descent, Recipe
from common.methods import control_part, model_part
from server.strategies import FedAvg, Said, model_of
from server.strategies.adaptive import Adaptive
from server.strategies.agnostic import Agnostic
from server.strategies.contract import memory_of
from server.strategies.q_ffl import QFFL
from server.strategies.scaffold import Scaffold

RATE, STEPS = 0.1, 10


@dataclass(frozen=True)
class Quadratic:
    """One site."""

    name: str
    curve: np.ndarray
    target: np.ndarray
    weight: int = 10

    def loss(self, w):
        return float((self.curve * (w - self.target) ** 2).sum() / 2)


TWO = (
    Quadratic("steep", np.array([2.0, 0.5]), np.array([1.0, -1.0])),
    Quadratic("flat", np.array([0.1, 0.5]), np.array([-2.0, 1.0])),
)
BEST = sum(s.curve * s.target for s in TWO) / sum(s.curve for s in TWO)
"""Where the mean of the losses of `TWO` is least."""


def learned(site, weights, push=None, mu=0.0, steps=STEPS):
    """The change of local descent at one site, by the hospital's own optimizer."""
    parameter = nn.Parameter(torch.from_numpy(np.array(weights, np.float32)))
    recipe = Recipe("sgd", RATE, 0.0, 0.0, mu, 1, 1)
    descent = Descent([parameter], recipe, [] if push is None else [torch.from_numpy(np.array(push))])
    curve, target = (torch.from_numpy(a.astype(np.float32)) for a in (site.curve, site.target))
    for _ in range(steps):
        parameter.grad = curve * (parameter.detach() - target)
        descent.step()
    return parameter.detach().numpy() - np.asarray(weights, np.float32)


def federate(strategy, sites, rounds, *, site_half=None, rate=1.0, mu=0.0):
    """The carried tensors after so many rounds, and what each site kept."""
    half = site_half or Plain()
    carried, kept = strategy.begin({"w": np.zeros(2, np.float32)}), {s.name: {} for s in sites}
    for _ in range(rounds):
        sent = strategy.sent(carried)
        state = strategy.init({"w": (2,)}, sum(s.weight for s in sites))
        for site in sites:
            given = Given(model_part(sent), control_part(sent), kept[site.name])
            begun = half.begin(given)
            change = learned(site, begun.weights["w"], begun.push.get("w"), mu)
            left = half.end(given, {"w": change})
            kept[site.name] = left.kept
            said = Said(site.name, site.loss(given.model["w"]))
            state = strategy.fold(state, left.delta, site.weight, said)
        carried = strategy.apply(carried, state, rate)
    return carried, kept


def place(strategy, sites, rounds, **more):
    return model_of(federate(strategy, sites, rounds, **more)[0])["w"].astype(np.float64)


# ---- FedProx -------------------------------------------------------------------------------------------


def test_fedprox_is_fedavg_at_0_and_holds_sites_nearer_the_larger_mu_is():
    weights = np.zeros(2)
    drift = [np.linalg.norm(learned(TWO[0], weights, mu=mu)) for mu in (0.0, 0.3, 1.0, 3.0)]
    assert drift == sorted(drift, reverse=True)
    assert drift[3] < 0.5 * drift[0]
    np.testing.assert_array_equal(learned(TWO[0], weights, mu=0.0), learned(TWO[0], weights))


def test_fedprox_by_hand():
    """Two steps in one dimension: w1 = -rate*a*(0-t); the second feels the pull of mu*w1."""
    site = Quadratic("s", np.array([2.0, 0.0]), np.array([1.0, 0.0]))
    first = RATE * 2.0
    second = first - RATE * (2.0 * (first - 1.0) + 0.5 * first)
    found = learned(site, np.zeros(2), mu=0.5, steps=2)
    assert found[0] == pytest.approx(second, abs=1e-6)


def test_fedprox_lessens_the_bias_of_many_local_steps():
    """Li et al. 2020: with unlike sites the pull keeps the fixed point nearer to the minimum of the whole."""
    plain = np.linalg.norm(place(FedAvg(), TWO, 200) - BEST)
    held = np.linalg.norm(place(FedAvg(), TWO, 200, mu=3.0) - BEST)
    assert held < 0.6 * plain


# ---- SCAFFOLD ------------------------------------------------------------------------------------------


def test_scaffold_finds_the_minimum_that_fedavg_misses():
    """Karimireddy et al. 2020, section 7.1: unlike quadratics, several local steps."""
    plain = np.linalg.norm(place(FedAvg(), TWO, 300) - BEST)
    both = {"site_half": SiteScaffold(STEPS * RATE)}
    corrected = np.linalg.norm(place(Scaffold(STEPS * RATE), TWO, 300, **both) - BEST)
    assert plain > 0.1
    assert corrected < 1e-3


def test_the_servers_variate_is_the_mean_of_the_sites_though_it_sees_the_sum_alone():
    sites = (*TWO, Quadratic("third", np.array([1.0, 1.0]), np.array([0.5, 0.5]), weight=30))
    for rounds in (1, 2, 7):
        carried, kept = federate(Scaffold(STEPS * RATE), sites, rounds, site_half=SiteScaffold(STEPS * RATE))
        mean = sum(s.weight * kept[s.name]["variate.w"].astype(np.float64) for s in sites) / 50
        np.testing.assert_allclose(memory_of(carried)["control.w"], mean, atol=2e-6)


def test_scaffold_by_hand_with_a_site_that_did_not_come():
    """c = 0.4, of weight 30 came 10 with a step of 0.2 over a stride of 0.5: c moves a third of the way to -0.4."""
    strategy = Scaffold(0.5)
    carried = {"w": np.zeros(1, np.float32), "memory.control.w": np.full(1, 0.4, np.float32)}
    state = strategy.fold(strategy.init({"w": (1,)}, 30), {"w": np.full(1, 0.2, np.float32)}, 10)
    moved = strategy.apply(carried, state, 1.0)
    assert moved["w"][0] == pytest.approx(0.2, abs=1e-7)
    assert moved["memory.control.w"][0] == pytest.approx(0.4 + (-0.4 - 0.4) / 3, abs=1e-6)


# ---- FedAdam, FedYogi ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["adam", "yogi"])
def test_the_first_two_adaptive_steps_by_hand(rule):
    strategy = Adaptive(rule, 0.9, 0.99, 0.1)
    carried = strategy.begin({"w": np.array([1.0], np.float32)})
    w, m, v = 1.0, 0.0, 0.01
    for mean in (0.5, -0.25):
        state = strategy.fold(strategy.init({"w": (1,)}, 10), {"w": np.array([mean], np.float32)}, 10)
        carried = strategy.apply(carried, state, 0.3)
        m = 0.9 * m + 0.1 * mean
        v = 0.99 * v + 0.01 * mean**2 if rule == "adam" else v - 0.01 * mean**2 * np.sign(v - mean**2)
        w += 0.3 * m / (np.sqrt(v) + 0.1)
        assert carried["w"][0] == pytest.approx(w, abs=1e-6)
    memory = memory_of(carried)
    assert (memory["first.w"][0], memory["second.w"][0]) == (pytest.approx(m), pytest.approx(v))


@pytest.mark.parametrize("rule", ["adam", "yogi"])
def test_adaptive_rules_learn_what_few_updates_touch(rule):
    """Reddi et al. 2021, section 5: where gradients of some coordinates are small or rare, adaptivity wins."""
    uneven = tuple(
        Quadratic(f"s{k}", np.array([1.0, 0.002]), np.array([1.0 + k, 1.0 - k])) for k in (-0.1, 0.1)
    )
    slow, quick = place(FedAvg(), uneven, 60), place(Adaptive(rule), uneven, 60, rate=0.05)
    assert abs(slow[1] - 1.0) > 0.8
    assert abs(quick[1] - 1.0) < 0.4
    assert abs(quick[0] - 1.0) < 0.2


# ---- q-FFL and agnostic --------------------------------------------------------------------------------

UNFAIR = (
    Quadratic("large", np.ones(2), np.array([0.0, 0.0]), weight=100),
    Quadratic("small", np.ones(2), np.array([3.0, 1.0]), weight=10),
)


def _losses(w):
    return np.array([site.loss(w) for site in UNFAIR])


def _updates(strategy, losses=(0.5, 2.0), weights=(10, 30)):
    state = strategy.init({"w": (2,)}, sum(weights))
    deltas = (np.array([0.2, 0.0], np.float32), np.array([0.0, -0.4], np.float32))
    for name, delta, loss, weight in zip("ab", deltas, losses, weights, strict=True):
        state = strategy.fold(state, {"w": delta}, weight, Said(name, loss))
    return strategy.apply(strategy.begin({"w": np.zeros(2, np.float32)}), state, 1.0)


def test_q_ffl_by_hand():
    """L = 1/0.1; q = 2; F = 0.5, 2; |delta| = 0.2, 0.4; weights 10, 30."""
    numerator = np.array([10 * 0.5**2 * 10 * 0.2, -30 * 2.0**2 * 10 * 0.4])
    h = 10 * (2 * 0.5 * (10 * 0.2) ** 2 + 10 * 0.5**2) + 30 * (2 * 2.0 * (10 * 0.4) ** 2 + 10 * 2.0**2)
    np.testing.assert_allclose(_updates(QFFL(2.0, 0.1))["w"], numerator / h, rtol=1e-6)


def test_agnostic_by_hand_over_two_rounds():
    strategy = Agnostic(0.5)
    carried = _updates(strategy)
    shares = np.array([10 * np.exp(0.25), 30 * np.exp(1.0)])
    shares /= shares.sum()
    np.testing.assert_allclose(carried["w"], [0.2 * shares[0], -0.4 * shares[1]], rtol=1e-6)
    scores = memory_of(carried)
    assert scores["score.b"][0] - scores["score.a"][0] == pytest.approx(0.75)


@pytest.mark.parametrize("strategy", [QFFL(0.0, RATE), Agnostic(0.0)])
def test_at_0_they_are_federated_averaging(strategy):
    np.testing.assert_allclose(place(strategy, UNFAIR, 5), place(FedAvg(), UNFAIR, 5), atol=1e-6)


def test_q_ffl_narrows_the_spread_of_losses_as_q_grows():
    """Li et al. 2020, table 1: the variance over sites falls with q, at some cost to the mean."""
    spread = [np.ptp(_losses(place(QFFL(q, RATE), UNFAIR, 150))) for q in (0.0, 1.0, 5.0)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 0.5 * spread[0]
    mean = [_losses(place(QFFL(q, RATE), UNFAIR, 150)) @ [100, 10] for q in (0.0, 5.0)]
    assert mean[1] > mean[0]


def test_agnostic_lowers_the_largest_loss_to_where_both_are_alike():
    """Mohri et al. 2019: the minimax point of two equal bowls lies half way, whatever their weights."""
    plain, fair = place(FedAvg(), UNFAIR, 400), place(Agnostic(0.02), UNFAIR, 400)
    assert _losses(fair).max() < 0.5 * _losses(plain).max()
    assert np.ptp(_losses(fair)) < 0.1 * _losses(fair).max()


def test_one_who_comes_late_begins_in_the_middle():
    strategy = Agnostic(0.5)
    carried = _updates(strategy)
    state = strategy.fold(strategy.init({"w": (2,)}, 10), {"w": np.ones(2, np.float32)}, 10, Said("c", 0.0))
    scores = memory_of(strategy.apply(carried, state, 1.0))
    assert scores["score.a"][0] < scores["score.c"][0] < scores["score.b"][0]
