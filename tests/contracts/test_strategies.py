"""The laws every federated algorithm here obeys."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import get_args, get_type_hints

import numpy as np
import pytest

from common import checkpoints
from common.checkpoints import Checkpoint
from common.methods import model_part
from common.plan import replace
from common.plan_federation import Federation
from server.strategies import STRATEGIES, Said, model_of, strategy_for
from tests.toy import toy_plan

MODEL = {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "b": np.zeros(2, np.float32)}
SCHEMA = {name: a.shape for name, a in MODEL.items()}


def _deltas(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        ({n: rng.normal(size=s).astype(np.float32) for n, s in SCHEMA.items()}, 10 * k)
        for k in range(1, count + 1)
    ]


NUMBERS = {"fedprox": {"federation": {"proximal_mu": 0.1}}}
BY_LOSS = ("q-ffl", "agnostic")


def _plan(name):
    plan = toy_plan()
    still = {"training": {"momentum": 0.0, "local_steps": 4}} if name == "scaffold" else {}
    federation = {"strategy": name, **NUMBERS.get(name, {}).get("federation", {})}
    return replace(plan, federation=federation, **still)


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request):
    return strategy_for(_plan(request.param))


@pytest.fixture(params=sorted(set(STRATEGIES) - {"fedadam", "fedyogi"}))
def mean(request):
    """Those whose step is the mean; q-FFL and agnostic averaging at their numbers' zero."""
    return strategy_for(_plan(request.param))


def _fold(strategy, deltas):
    state = strategy.init(SCHEMA, sum(weight for _, weight in deltas))
    for delta, weight in deltas:
        state = strategy.fold(state, delta, weight, Said(f"site-{weight}", 0.7))
    return state


def _run(strategy, deltas, rate=1.0):
    return strategy.apply(strategy.begin(MODEL), _fold(strategy, deltas), rate)


def test_every_strategy_a_plan_can_name_is_there():
    assert set(get_args(get_type_hints(Federation)["strategy"])) == set(STRATEGIES)


def test_the_order_of_folding_does_not_matter(strategy):
    forwards, backwards = _run(strategy, _deltas()), _run(strategy, _deltas()[::-1])
    assert all(forwards[n].tobytes() == backwards[n].tobytes() for n in SCHEMA)


def test_what_is_carried_survives_a_round_on_disk(strategy, tmp_path):
    """A second round from a checkpoint is the second round of a run that was never killed."""
    carried = _run(strategy, _deltas())
    path = tmp_path / "checkpoint.safetensors"
    checkpoints.save(Checkpoint("run", 1, "sha256:p", "sha256:a", carried), path)
    again = checkpoints.load(path, mapped=True).arrays
    one, two = (strategy.apply(of, _fold(strategy, _deltas(seed=1)), 1.0) for of in (carried, again))
    assert list(one) == list(two)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_a_sum_in_files_gives_the_same_bits(strategy, tmp_path):
    state = strategy.init(SCHEMA, 100, tmp_path)
    for delta, weight in _deltas():
        state = strategy.fold(state, delta, weight, Said(f"site-{weight}", 0.7))
    found, wanted = strategy.apply(strategy.begin(MODEL), state, 1.0), _run(strategy, _deltas())
    assert all(found[n].tobytes() == wanted[n].tobytes() for n in wanted)


def test_what_the_sites_are_sent_begins_with_the_model_and_holds_no_memory_of_the_server(strategy):
    carried = _run(strategy, _deltas())
    sent = strategy.sent(carried)
    assert list(sent)[: len(MODEL)] == list(MODEL)
    assert not any(name.startswith("memory.") for name in sent)
    assert list(model_part(sent)) == list(MODEL)


def test_sites_that_agree_are_followed_exactly(mean):
    strategy = mean
    delta, _ = _deltas()[0]
    exact = {n: (np.rint(d * 2.0**20) / 2.0**20).astype(np.float32) for n, d in delta.items()}
    moved = _run(strategy, [(exact, 10), (exact, 20)])
    for name in SCHEMA:
        np.testing.assert_array_equal(moved[name], MODEL[name] + exact[name])


def test_a_zero_delta_moves_no_mean_and_a_zero_rate_nothing(strategy):
    still = {n: np.zeros(s, np.float32) for n, s in SCHEMA.items()}
    for moved in (_run(strategy, [(still, 5)]), _run(strategy, _deltas(), rate=0.0)):  # no moment yet either
        assert all(moved[n].tobytes() == MODEL[n].tobytes() for n in SCHEMA)


def test_states_are_frozen_and_folding_leaves_its_arguments_alone(strategy):
    (delta, weight), *_ = _deltas()
    copy = {n: d.copy() for n, d in delta.items()}
    state = strategy.init(SCHEMA, weight)
    before = dataclasses.asdict(state)
    folded = strategy.fold(state, delta, weight, Said("site", 0.5))
    assert state.weight == 0
    assert str(dataclasses.asdict(state)) == str(before)
    assert all(np.array_equal(copy[n], delta[n]) for n in SCHEMA)
    with pytest.raises(dataclasses.FrozenInstanceError):
        folded.weight = 3


def test_the_model_keeps_its_names_order_shapes_and_dtype(strategy):
    moved = model_of(_run(strategy, _deltas()))
    assert list(moved) == list(MODEL)
    assert all(a.dtype == np.float32 and a.shape == SCHEMA[n] for n, a in moved.items())


def test_a_weight_counts_like_that_many_sites(mean):
    strategy = mean
    deltas = _deltas(2)
    (one, _), (two, _) = deltas
    together = _run(strategy, [(one, 3), (two, 1)])
    apart = _run(strategy, [(one, 1), (two, 1), (one, 1), (one, 1)])
    for name in SCHEMA:  # exact but for those that hold updates until all have come
        np.testing.assert_allclose(together[name], apart[name], rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(BY_LOSS)))
def test_one_update_is_held_at_a_time(name):
    """Folding a hundred updates takes the memory of the sum, not of a hundred updates."""
    strategy = strategy_for(_plan(name))
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
