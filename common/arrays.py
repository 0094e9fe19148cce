"""Arithmetic on a model's tensors that gives the same bits in whatever order updates arrive.

Floating-point addition depends on its order; integer addition does not. An update's float32 values
are therefore counted in steps of `RESOLUTION`, weighted and summed as int64, and only the finished
sum is turned back into floats. The sum of integers is also what secure aggregation will add later.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common import tensors
from common.errors import WrongOrder
from common.types import Arrays, Digest

RESOLUTION_BITS: Final = 32
RESOLUTION: Final = 2.0**-RESOLUTION_BITS
"""The step in which values are counted: 2.3e-10, below float32's own step for any |value| > 2e-3."""

_SUM_BITS: Final = 62
"""Room for the magnitude of a weighted sum: int64 with its sign bit and one bit to spare."""

IntArrays = Mapping[str, npt.NDArray[np.int64]]
Schema = Mapping[str, tuple[int, ...]]
"""The name and shape of every tensor, in the model's order; the dtype is always float32."""


@dataclass(frozen=True)
class Sum:
    """A weighted sum of updates in fixed point, and the weight summed so far."""

    counts: IntArrays
    """int64, in units of `RESOLUTION`."""
    weight: int
    total_weight: int
    """The largest `weight` this sum may reach; fixed before the first update, so the bound on
    values is the same for every order of arrival."""
    folder: Path | None = None
    """Where `counts` lie in a mapped file and are added to in place, so that the sum before is then used up."""


def schema_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor, in order."""
    return {name: tuple(array.shape) for name, array in arrays.items()}


def largest_value(total_weight: int) -> float:
    """The magnitude below which no weighted sum of values can overflow int64."""
    return 2.0 ** (_SUM_BITS - RESOLUTION_BITS) / max(total_weight, 1)


def zero(schema: Schema, total_weight: int, folder: Path | None = None) -> Sum:
    """An empty sum with room for updates that weigh `total_weight` together.

    Args:
        schema: of the model.
        total_weight: positive.
        folder: where the sum lies in a nameless file, so that it takes no memory; in memory when not given.

    Raises:
        WrongOrder: when `total_weight` is not positive.
        StorageError: when there is no room in `folder`.
    """
    if total_weight < 1:
        raise WrongOrder("total weight", "it must be positive", "Count the expected sites first")
    if folder is not None:
        return Sum(tensors.zeros(schema, np.int64, folder), 0, total_weight, folder)
    return Sum({name: np.zeros(shape, np.int64) for name, shape in schema.items()}, 0, total_weight)


def add(total: Sum, arrays: Arrays, weight: int) -> Sum:
    """`total + weight * arrays`, exactly; neither argument is changed, but for a sum on disk, which is added to.

    Raises:
        WrongOrder: when the caller did not check names, shapes, magnitude or weight before.
    """
    if total.weight + weight > total.total_weight:
        raise WrongOrder("weight", "it is above the total agreed on", "Admit the update first")
    if schema_of(arrays) != schema_of(total.counts):
        raise WrongOrder("update", "its tensors are not those of the sum", "Admit the update first")
    limit = largest_value(total.total_weight)
    counts: IntArrays = total.counts if total.folder else {n: c.copy() for n, c in total.counts.items()}
    for name, held in counts.items():
        flat, values = held.reshape(-1), arrays[name].reshape(-1)
        for part in slices(flat, values):
            flat[part] += weight * _fixed(values[part], limit)
    return replace(total, counts=counts, weight=total.weight + weight)


def slices(*flats: npt.NDArray[Any]) -> Iterator[slice]:
    """Flat tensors of one size in pieces that fit into memory several times over.

    What lies in mapped files gives its memory back after each piece.
    """
    size = flats[0].size
    for begin in range(0, size, tensors.SLICE):
        yield slice(begin, min(begin + tensors.SLICE, size))
        tensors.give_back(*flats)


def blank(schema: Schema, folder: Path | None) -> Arrays:
    """Writable float32 tensors of this schema, in a mapped file of a folder where one is given.

    Raises:
        StorageError: when there is no room in `folder`.
    """
    if folder is not None:
        return tensors.zeros(schema, np.float32, folder)
    return {name: np.empty(shape, np.float32) for name, shape in schema.items()}


def _fixed(array: npt.NDArray[Any], limit: float) -> npt.NDArray[np.int64]:
    values = array.astype(np.float64)
    if not bool(np.all(np.abs(values) < limit)):
        raise WrongOrder("update", "a value is not finite or too large to sum", "Admit the update first")
    # Scaling by a power of two is exact; rint rounds halves to even, on every machine.
    return np.asarray(np.rint(values * 2.0**RESOLUTION_BITS), dtype=np.int64)


def step(arrays: Arrays, total: Sum, rate: float) -> Arrays:
    """`arrays + rate * total / weight`, computed in float64 and rounded once to float32; on disk where the sum is.

    Raises:
        WrongOrder: when nothing was added yet.
        StorageError: when there is no room on that disk.
    """
    if total.weight == 0:
        raise WrongOrder("sum", "no update was added", "Check the quorum before the step")
    scale = rate * RESOLUTION
    moved = blank(schema_of(arrays), total.folder)
    for name, array in arrays.items():
        old, counts, new = (of.reshape(-1) for of in (array, total.counts[name], moved[name]))
        for part in slices(old, counts, new):
            new[part] = old[part].astype(np.float64) + counts[part] / total.weight * scale
    return moved


def norm(arrays: Arrays) -> float:
    """The L2 norm over all tensors together, in float64; not finite when a value is not."""
    squared = 0.0
    for array in arrays.values():
        flat = array.reshape(-1)
        squared += sum(float(np.sum(np.square(flat[part].astype(np.float64)))) for part in slices(flat))
    return math.sqrt(squared)


def digest(arrays: Arrays) -> Digest:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in order."""
    state = hashlib.sha256()
    for name, array in arrays.items():
        head = f"{len(name)}:{name}:{array.dtype.str}:{array.shape}:"
        state.update(head.encode())
        for portion in tensors.portions(np.asarray(array, order="C").reshape(-1).view(np.uint8).data):
            state.update(portion)
    return Digest("sha256:" + state.hexdigest())
