"""Robust rules against slow, literal readings of their papers, and against a site that lies."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from common import tensors
from common.arrays import digest
from common.errors import FederationError, WrongOrder
from server.strategies.robust import RULES, Robust

MODEL = {"w": np.zeros((5, 7), np.float32), "b": np.zeros(3, np.float32), "s": np.zeros((), np.float32)}
SCHEMA = {name: a.shape for name, a in MODEL.items()}


def _updates(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{n: np.float32(rng.normal(size=s)).reshape(s) for n, s in SCHEMA.items()} for _ in range(count)]


def _flat(update):
    return np.concatenate([np.asarray(update[n], np.float64).reshape(-1) for n in SCHEMA])


def _run(rule, updates, rate=1.0):
    state = rule.init(SCHEMA, 10 * len(updates))
    for update in updates:
        state = rule.fold(state, update, 10)
    return rule.apply(MODEL, state, rate)


def _literal_krum(vectors, f):
    """Blanchard et al. 2017, section 4: the sum over the n - f - 2 closest others."""
    n = len(vectors)
    scores = []
    for i in range(n):
        apart = sorted(sum((vectors[i] - vectors[j]) ** 2) for j in range(n) if j != i)
        scores.append(sum(apart[: max(n - f - 2, 1)]))
    return sorted(range(n), key=lambda i: scores[i])


def _literal(name, vectors, f):
    """The rule as its paper says it, one coordinate at a time."""
    if name == "multi-krum":
        order = _literal_krum(vectors, f)
        return np.mean([vectors[i] for i in order[: len(vectors) - f]], axis=0)
    if name == "bulyan":
        left, chosen = list(range(len(vectors))), []
        while len(chosen) < len(vectors) - 2 * f:
            best = left[_literal_krum([vectors[i] for i in left], f)[0]]
            chosen.append(best)
            left.remove(best)
        vectors = [vectors[i] for i in chosen]
        out = []
        for column in zip(*vectors, strict=True):
            centre = np.median(column)
            nearest = sorted(column, key=lambda v: abs(v - centre))[: len(column) - 2 * f]
            out.append(np.mean(nearest))
        return np.array(out)
    columns = [sorted(column) for column in zip(*vectors, strict=True)]
    if name == "median":
        return np.array([np.median(c) for c in columns])
    return np.array([np.mean(c[f : len(c) - f]) for c in columns])


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize(("count", "tolerated"), [(7, 1), (8, 1), (11, 2)])
def test_a_rule_gives_what_its_paper_says(name, count, tolerated):
    updates = sorted(_updates(count, seed=count), key=digest)  # where two are equally central, this decides
    moved = _run(Robust(name, tolerated), updates, rate=0.5)
    wanted = 0.5 * _literal(name, [_flat(u) for u in updates], tolerated)
    np.testing.assert_allclose(_flat(moved), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(RULES))
def test_slices_do_not_show(name, tmp_path):
    """A tensor larger than what is worked on at once is joined as if it were whole."""
    rng = np.random.default_rng(1)
    shape = (tensors.SLICE + 13,)
    updates = [{"w": rng.normal(size=shape).astype(np.float32)} for _ in range(7)]
    rule = Robust(name, 1)
    state = rule.init({"w": shape}, 70)
    for update in updates:
        state = rule.fold(state, update, 10)
    moved = rule.apply({"w": np.zeros(shape, np.float32)}, state, 1.0)["w"]
    kept = RULES[name].choose(tuple(updates), 1)
    whole = RULES[name].join(np.stack([u["w"] for u in kept]), 1)
    np.testing.assert_allclose(moved, whole, atol=1e-6)
    on_disk = rule.apply({"w": np.zeros(shape, np.float32)}, replace(state, folder=tmp_path), 1.0)["w"]
    assert tensors.under(on_disk) is not None
    assert np.array_equal(on_disk, moved)


@pytest.mark.parametrize("name", sorted(RULES))
def test_one_liar_among_seven_cannot_move_the_model_out_of_what_the_others_say(name):
    """Whatever it sends, every coordinate stays within the honest sites' own range."""
    honest = _updates(6, seed=3)
    low = np.min([_flat(u) for u in honest], axis=0)
    high = np.max([_flat(u) for u in honest], axis=0)
    for factor in (-1e6, -10.0, 1e3, 1e30):
        liar = {n: np.float32(factor * np.ones(s)).reshape(s) for n, s in SCHEMA.items()}
        moved = _flat(_run(Robust(name, 1), [*honest, liar]))
        assert np.all(moved >= low - 1e-6)
        assert np.all(moved <= high + 1e-6)


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_order_of_arrival_does_not_show_even_between_equals(name):
    """Symmetric updates, so that Krum's scores tie."""
    one = _updates(1)[0]
    updates = [
        {n: np.float32(k * u).reshape(u.shape) for n, u in one.items()} for k in (-3, -2, -1, 0, 1, 2, 3)
    ]
    first = _run(Robust(name, 1), updates)
    for order in itertools.islice(itertools.permutations(updates), 0, 5040, 501):
        again = _run(Robust(name, 1), list(order))
        assert all(first[n].tobytes() == again[n].tobytes() for n in MODEL)


@pytest.mark.parametrize(
    ("name", "needs"), [("trimmed-mean", 3), ("median", 3), ("multi-krum", 5), ("bulyan", 7)]
)
def test_too_few_updates_for_the_rule_are_named(name, needs):
    with pytest.raises(FederationError, match=f"it needs {needs} updates, and {needs - 1} came") as caught:
        _run(Robust(name, 1), _updates(needs - 1))
    assert caught.value.code == "robust-few"
    _run(Robust(name, 1), _updates(needs))


def test_memory_mapped_updates_are_read_where_they_lie(tmp_path):
    """Rules take what NumPy maps from a file, and change nothing in it."""
    updates = _updates(7)
    mapped = []
    for k, update in enumerate(updates):
        own = {}
        for name, array in update.items():
            path = tmp_path / f"{k}-{name}.npy"
            np.save(path, array)
            own[name] = np.load(path, mmap_mode="r")
        mapped.append(own)
    for name in RULES:
        plain, from_disk = _run(Robust(name, 1), updates), _run(Robust(name, 1), mapped)
        assert all(plain[n].tobytes() == from_disk[n].tobytes() for n in MODEL)


def test_other_tensors_than_the_models_and_an_empty_round_are_a_programmers_mistake():
    rule = Robust("median", 1)
    with pytest.raises(WrongOrder):
        rule.fold(rule.init(SCHEMA, 10), {"w": np.zeros(3, np.float32)}, 10)
    with pytest.raises(WrongOrder):
        rule.apply(MODEL, rule.init(SCHEMA, 10), 1.0)
