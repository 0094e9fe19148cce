"""The laws every federated algorithm here obeys."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import get_args, get_type_hints

import numpy as np
import pytest

from common.plan_federation import Federation
from server.strategies import STRATEGIES

MODEL = {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "b": np.zeros(2, np.float32)}
SCHEMA = {name: a.shape for name, a in MODEL.items()}


def _deltas(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        ({n: rng.normal(size=s).astype(np.float32) for n, s in SCHEMA.items()}, 10 * k)
        for k in range(1, count + 1)
    ]


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request):
    return STRATEGIES[request.param]


def _run(strategy, deltas, rate=1.0):
    state = strategy.init(SCHEMA, sum(weight for _, weight in deltas))
    for delta, weight in deltas:
        state = strategy.fold(state, delta, weight)
    return strategy.apply(MODEL, state, rate)


def test_every_strategy_a_plan_can_name_is_there():
    assert set(get_args(get_type_hints(Federation)["strategy"])) == set(STRATEGIES)


def test_the_order_of_folding_does_not_matter(strategy):
    forwards, backwards = _run(strategy, _deltas()), _run(strategy, _deltas()[::-1])
    assert all(forwards[n].tobytes() == backwards[n].tobytes() for n in SCHEMA)


def test_sites_that_agree_are_followed_exactly(strategy):
    delta, _ = _deltas()[0]
    exact = {n: (np.rint(d * 2.0**20) / 2.0**20).astype(np.float32) for n, d in delta.items()}
    moved = _run(strategy, [(exact, 10), (exact, 20)])
    for name in SCHEMA:
        np.testing.assert_array_equal(moved[name], MODEL[name] + exact[name])


def test_a_zero_delta_or_a_zero_rate_moves_nothing(strategy):
    still = {n: np.zeros(s, np.float32) for n, s in SCHEMA.items()}
    for moved in (_run(strategy, [(still, 5)]), _run(strategy, _deltas(), rate=0.0)):
        assert all(moved[n].tobytes() == MODEL[n].tobytes() for n in SCHEMA)


def test_states_are_frozen_and_folding_leaves_its_arguments_alone(strategy):
    (delta, weight), *_ = _deltas()
    copy = {n: d.copy() for n, d in delta.items()}
    state = strategy.init(SCHEMA, weight)
    folded = strategy.fold(state, delta, weight)
    assert state.weight == 0
    assert not any(counts.any() for counts in state.counts.values())
    assert all(np.array_equal(copy[n], delta[n]) for n in SCHEMA)
    with pytest.raises(dataclasses.FrozenInstanceError):
        folded.weight = 3


def test_the_model_keeps_its_names_order_shapes_and_dtype(strategy):
    moved = _run(strategy, _deltas())
    assert list(moved) == list(MODEL)
    assert all(a.dtype == np.float32 and a.shape == SCHEMA[n] for n, a in moved.items())


def test_a_weight_counts_like_that_many_sites(strategy):
    deltas = _deltas(2)
    (one, _), (two, _) = deltas
    together = _run(strategy, [(one, 3), (two, 1)])
    apart = _run(strategy, [(one, 1), (two, 1), (one, 1), (one, 1)])
    assert all(together[n].tobytes() == apart[n].tobytes() for n in SCHEMA)


def test_one_update_is_held_at_a_time(strategy):
    """Folding a hundred updates takes the memory of the sum, not of a hundred updates."""
    schema = {"w": (50_000,)}
    size = 50_000 * 8
    rng = np.random.default_rng(0)
    state = strategy.init(schema, 1000)
    tracemalloc.start()
    for _ in range(20):
        state = strategy.fold(state, {"w": rng.normal(size=50_000).astype(np.float32)}, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * size
