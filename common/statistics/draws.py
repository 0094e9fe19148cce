"""Sums over cells for many draws at once: tables are [cells or images, draws] in single precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.models.influence import IntArray
from common.types import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Table = npt.NDArray[np.float32]


def single(values: FloatArray) -> Table:
    """In single precision."""
    return values.astype(np.float32)


def dot(one: Table, two: Table) -> FloatArray:
    """Sum over rows of the products."""
    summed: FloatArray = np.einsum("ij,ij->j", one, two).astype(np.float64)
    return summed


def weighed(table: Table, weights: Table) -> FloatArray:
    """Sum over rows, each times its weight."""
    return (weights @ table).astype(np.float64)


def squares(table: Table) -> FloatArray:
    """Sum over rows of the squares."""
    return dot(table, table)


def summing(owner: IntArray) -> csr_array:
    """[owners, rows] that sums the rows of one owner."""
    from scipy.sparse import csr_array  # noqa: PLC0415 - slow to import, and most who load this module draw nothing

    codes = np.unique(owner, return_inverse=True)[1].reshape(-1)
    ones = np.ones(len(owner), dtype=np.float32)
    return csr_array((ones, (codes, np.arange(len(owner)))))


def divide(above: npt.ArrayLike, below: npt.ArrayLike) -> FloatArray:
    """Not a number where there is nothing to divide by."""
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    ratio: FloatArray = np.where(b > 0, a / np.where(b > 0, b, 1.0), np.nan)
    return ratio
