"""Sums that do not depend on their order, and bounds that keep them from overflowing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import arrays
from common.errors import WrongOrder


def _updates(seed: int, count: int, scale: float):
    rng = np.random.default_rng(seed)
    return [
        ({"w": (rng.normal(size=(3, 4)) * scale).astype(np.float32)}, int(rng.integers(1, 1000)))
        for _ in range(count)
    ]


def _sum(updates):
    total = arrays.zero({"w": (3, 4)}, sum(weight for _, weight in updates))
    for update, weight in updates:
        total = arrays.add(total, update, weight)
    return total


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 9),
    scale=st.sampled_from([1e-6, 1.0, 1e3]),
    data=st.data(),
)
def test_the_order_of_arrival_does_not_change_a_single_bit(seed, count, scale, data):
    updates = _updates(seed, count, scale)
    shuffled = data.draw(st.permutations(updates))
    one, other = _sum(updates), _sum(shuffled)
    assert one.counts["w"].tobytes() == other.counts["w"].tobytes()
    model = {"w": np.ones((3, 4), np.float32)}
    assert arrays.step(model, one, 0.7)["w"].tobytes() == arrays.step(model, other, 0.7)["w"].tobytes()


def test_floating_point_sums_do_depend_on_the_order_which_is_why_integers_are_used():
    values = [np.float32(1e8), np.float32(1.0), np.float32(-1e8)]
    assert (values[0] + values[1]) + values[2] != (values[0] + values[2]) + values[1]


def test_the_mean_is_right_to_the_resolution():
    updates = _updates(3, 5, 1.0)
    weights = sum(weight for _, weight in updates)
    exact = sum(weight * update["w"].astype(np.float64) for update, weight in updates) / weights
    got = arrays.step({"w": np.zeros((3, 4), np.float32)}, _sum(updates), 1.0)["w"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, rtol=2e-7, atol=arrays.RESOLUTION)


def test_a_single_update_at_rate_one_is_applied_as_it_is():
    update = {"w": np.array([0.5, -0.25, 3 * 2.0**-30], np.float32)}
    total = arrays.add(arrays.zero({"w": (3,)}, 7), update, 7)
    np.testing.assert_array_equal(arrays.step({"w": np.zeros(3, np.float32)}, total, 1.0)["w"], update["w"])


def test_the_largest_value_allowed_cannot_overflow_whatever_the_weights():
    weight = 1_000_000
    limit = arrays.largest_value(3 * weight)
    value = {"w": np.full(2, np.nextafter(np.float32(limit), np.float32(0)), np.float32)}
    total = arrays.zero({"w": (2,)}, 3 * weight)
    for _ in range(3):
        total = arrays.add(total, value, weight)
    assert (total.counts["w"] > 0).all()
    exact = 3 * weight * int(float(value["w"][0]) * 2**arrays.RESOLUTION_BITS)
    assert int(total.counts["w"][0]) == exact


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e30])
def test_what_admission_should_have_stopped_is_a_programmers_error(bad):
    total = arrays.zero({"w": (1,)}, 10)
    with pytest.raises(WrongOrder):
        arrays.add(total, {"w": np.array([bad], np.float32)}, 1)


def test_neither_too_much_weight_nor_other_tensors_nor_an_empty_step_pass():
    total = arrays.zero({"w": (1,)}, 10)
    with pytest.raises(WrongOrder):
        arrays.add(total, {"w": np.zeros(1, np.float32)}, 11)
    with pytest.raises(WrongOrder):
        arrays.add(total, {"v": np.zeros(1, np.float32)}, 1)
    with pytest.raises(WrongOrder):
        arrays.step({"w": np.zeros(1, np.float32)}, total, 1.0)
    with pytest.raises(WrongOrder):
        arrays.zero({"w": (1,)}, 0)


def test_the_digest_sees_names_shapes_types_order_and_values():
    base = {"a": np.zeros((2, 2), np.float32), "b": np.ones(3, np.float32)}
    others = [
        {"b": base["b"], "a": base["a"]},
        {"a": base["a"].reshape(4), "b": base["b"]},
        {"a": base["a"].astype(np.float64), "b": base["b"]},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"] + np.float32(1e-7), "b": base["b"]},
    ]
    digests = {arrays.digest(a) for a in (base, *others)}
    assert len(digests) == len(others) + 1
    assert arrays.digest(base) == arrays.digest({k: v.copy() for k, v in base.items()})


def test_the_norm_runs_over_all_tensors_together():
    assert arrays.norm({"a": np.array([3.0], np.float32), "b": np.array([[4.0]], np.float32)}) == 5.0
    assert not np.isfinite(arrays.norm({"a": np.array([np.inf], np.float32)}))
