"""Updates in fewer bits: unbiased, bounded, replayed to the bit, and nothing but our own coding accepted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.arrays import schema_of
from common.compression import BLOCK, SCALES, compress, decompress
from common.errors import WrongOrder

SEED = ("run-1", 3, "st-anna")
VALUES = st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False, allow_infinity=False)


def _update(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(size=(64, 3, 7, 7)).astype(np.float32),
        "conv.bias": np.zeros(64, np.float32),
        "head.weight": (1e-4 * rng.standard_t(2, size=(1, 5000))).astype(np.float32),
        "scalar": np.float32(rng.normal(size=())).reshape(()),
    }


def _bytes(tensors):
    return sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("bits", [8, 16])
@given(array=arrays(np.float32, array_shapes(min_dims=0, max_dims=3, max_side=40), elements=VALUES))
@settings(max_examples=60, deadline=None)
def test_no_value_is_off_by_more_than_a_step(bits, array):
    """A step is the block's largest magnitude over 127 or 32,767; one float32 rounding is allowed on top."""
    update = {"w": array}
    back = decompress(compress(update, bits, SEED), bits, schema_of(update))["w"]
    assert back.shape == array.shape
    flat, got = array.reshape(-1).astype(np.float64), back.reshape(-1).astype(np.float64)
    for start in range(0, flat.size, BLOCK):
        block = slice(start, start + BLOCK)
        most = np.abs(flat[block]).max(initial=0.0)
        step = most / (2 ** (bits - 1) - 1)
        assert np.abs(got[block] - flat[block]).max(initial=0.0) <= step * 1.001 + most * 2e-7 + 1e-37


def test_it_is_right_on_average():
    """4,000 roundings of the same values: the mean is within five standard errors of the value."""
    update = {"w": np.array([1.0, 0.3, -0.3, 0.004, -0.0001, 0.0], np.float32)}
    draws = np.stack(
        [decompress(compress(update, 8, ("r", k, "s")), 8, schema_of(update))["w"] for k in range(4000)]
    )
    error = np.abs(draws.mean(0) - update["w"])
    assert np.all(error <= 5 * (1 / 127) * 0.5 / np.sqrt(4000) + 1e-7)
    assert draws.std(0)[1] > 0


@pytest.mark.parametrize(("bits", "most"), [(8, 0.3), (16, 0.51)])
def test_the_bytes_are_as_few_as_promised(bits, most):
    update = {"w": np.random.default_rng(0).normal(size=100_000).astype(np.float32)}
    assert _bytes(compress(update, bits, SEED)) <= most * _bytes(update)


def test_the_same_round_is_rounded_the_same_way_and_another_is_not():
    update = _update()
    first, again = compress(update, 8, SEED), compress(update, 8, SEED)
    other = compress(update, 8, ("run-1", 4, "st-anna"))
    assert all(first[n].tobytes() == again[n].tobytes() for n in first)
    assert any(first[n].tobytes() != other[n].tobytes() for n in first)


def test_zeros_stay_zeros():
    update = {"w": np.zeros((3, 700), np.float32)}
    assert not decompress(compress(update, 8, SEED), 8, schema_of(update))["w"].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_compressed(value):
    with pytest.raises(WrongOrder):
        compress({"w": np.array([value], np.float32)}, 8, SEED)


def _spoiled(word, packed):
    first = next(iter(packed))
    match word:
        case "names":
            del packed[first]
        case "dtype":
            packed[first] = packed[first].astype(np.int32)
        case "shape":
            packed[SCALES] = packed[SCALES][:-1]
        case "not-finite":
            packed[SCALES] = packed[SCALES] * np.float32(np.nan)
    return packed


@pytest.mark.parametrize("word", ["names", "dtype", "shape", "not-finite"])
def test_what_nobody_compressed_is_refused_by_one_word(word):
    update = _update()
    with pytest.raises(ValueError, match=f"^{word}$"):
        decompress(_spoiled(word, compress(update, 8, SEED)), 8, schema_of(update))


def test_other_bits_than_agreed_are_refused():
    update = _update()
    with pytest.raises(ValueError, match="dtype"):
        decompress(compress(update, 16, SEED), 8, schema_of(update))
