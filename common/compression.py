"""An update in fewer bits: integers by stochastic rounding, one scale for every block of values.

Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and
Encoding", NIPS 2017, section 3.1, with the largest magnitude of a block in place of the 2-norm of the whole.
A value v in a block whose largest magnitude is m becomes floor(v / s + u) for s = m / L and u drawn evenly from
[0, 1), where L is 127 or 32,767. It is right on average, and never off by a whole s.

It is done after the noise of differential privacy, so it can take nothing from the guarantee. Its draws are
not secret: they follow from run, round and site, so that a round can be replayed to the bit.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from common.arrays import Schema
from common.errors import WrongOrder
from common.tensors import Made
from common.types import Arrays

Bits = Literal[8, 16]
BLOCK: Final = 1024
"""Values under one scale: four bytes in 1,024 are 0.4% of the size at 8 bits."""
SCALES: Final = "scales"
"""The tensor of all scales, after the model's own; no network here has a parameter of this name."""
_DTYPES: Final[dict[int, type[np.signedinteger[Any]]]] = {8: np.int8, 16: np.int16}

Seed = tuple[str, int, str]
"""Run, round and site."""


def compress(arrays: Arrays, bits: Bits, seed: Seed) -> dict[str, npt.NDArray[Any]]:
    """The same tensors as int8 or int16, in the same order and shapes, and `scales`, float32, behind them.

    Raises:
        WrongOrder: a value is not finite, or a tensor is called `scales`.
    """
    rng = np.random.Generator(np.random.PCG64(_number(seed)))
    packed: dict[str, npt.NDArray[Any]] = {}
    scales = []
    for name, array in arrays.items():
        if name == SCALES or not bool(np.all(np.isfinite(array))):
            raise WrongOrder("update", "it cannot be compressed", "Check its names and values first")
        packed[name], own = _rounded(array, bits, rng)
        scales.append(own)
    packed[SCALES] = np.concatenate(scales) if scales else np.zeros(0, np.float32)
    return packed


def decompress(packed: Arrays, bits: Bits, schema: Schema) -> Arrays:
    """The tensors of `schema`, float32, each value within one step of what was compressed.

    A tensor is made when it is asked for, so that no second copy of a model is held.

    Raises:
        ValueError: with one word, `names`, `dtype`, `shape` or `not-finite`, for what no `compress` made.
    """
    if list(packed) != [*schema, SCALES]:
        raise ValueError("names")
    scales = packed[SCALES]
    if scales.dtype != np.float32 or any(packed[name].dtype != _DTYPES[bits] for name in schema):
        raise ValueError("dtype")
    blocks = {name: _blocks(shape) for name, shape in schema.items()}
    if scales.shape != (sum(blocks.values()),) or any(packed[n].shape != s for n, s in schema.items()):
        raise ValueError("shape")
    if not bool(np.all(np.isfinite(scales))):
        raise ValueError("not-finite")
    begins, begin = {}, 0
    for name in schema:
        begins[name], begin = begin, begin + blocks[name]

    def decoded(name: str) -> npt.NDArray[np.float32]:
        own = scales[begins[name] : begins[name] + blocks[name]]
        flat = packed[name].reshape(-1).astype(np.float32)
        # A scale is at most the largest float over 127: a lie about it shows here as infinity.
        with np.errstate(over="ignore"):
            flat *= np.repeat(own, BLOCK)[: flat.size]
        return flat.reshape(schema[name])

    return Made(schema, decoded)


def _rounded(
    array: npt.NDArray[Any], bits: Bits, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """One tensor's codes and the scales of its blocks."""
    most = np.iinfo(_DTYPES[bits]).max
    flat = np.asarray(array, np.float32).reshape(-1)
    starts = np.arange(0, flat.size, BLOCK)
    largest = np.maximum.reduceat(np.abs(flat), starts) if flat.size else np.zeros(0, np.float32)
    scales = (largest / np.float32(most)).astype(np.float32)
    wide = np.repeat(scales.astype(np.float64), BLOCK)[: flat.size]
    steps = np.divide(flat, wide, out=np.zeros(flat.size), where=wide > 0)
    steps += rng.random(flat.size)
    codes = np.clip(np.floor(steps, out=steps), -most, most).astype(_DTYPES[bits])
    return codes.reshape(array.shape), scales


def _blocks(shape: tuple[int, ...]) -> int:
    return math.ceil(math.prod(shape) / BLOCK)


def _number(seed: Seed) -> int:
    text = "\0".join(("consilium/rounding/1", *map(str, seed)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
