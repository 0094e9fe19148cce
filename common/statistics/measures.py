"""The figures of a group and of everybody else, for many ways to be a group at once.

Membership is [cells, draws], 1 inside the group and 0 outside; weights may be any counts. Draws lie
in the last axis, so that a row is one cell and sums over cells are matrix products.

AUROC by placements (DeLong, DeLong and Clarke-Pearson 1988), rates and the Brier score as ratios: both
bring the variance of the gap with patients as clusters (Obuchowski 1997; Rao and Scott 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from common.models.influence import BoolArray, IntArray
from common.statistics.cells import Cells
from common.types import FloatArray

Table = npt.NDArray[np.float32]
"""[cells or images, draws]."""


@dataclass(frozen=True)
class Contrast:
    """A group beside everybody else, [draws] each; not a number where the figure does not exist."""

    inside: FloatArray
    outside: FloatArray
    variance: FloatArray | None = None
    """Of the gap, with patients as clusters; None: not to be had in closed form."""
    finer: FloatArray | None = None
    """A gap of the same direction that tells equal gaps apart: of ranks, where the figure counts calls."""

    @property
    def gap(self) -> FloatArray:
        """Inside less outside."""
        return self.inside - self.outside


class Measure(Protocol):
    """One figure, made ready for one family."""

    def figure(self, weights: Table) -> FloatArray:
        """The figure [draws] for weights [cells, draws]."""

    def contrast(self, member: Table) -> Contrast:
        """The figure inside and outside for membership [cells, draws]."""


class Plain:
    """A figure for which only its value is known."""

    def __init__(self, figure: Callable[[Table], FloatArray]) -> None:
        self._figure = figure

    def figure(self, weights: Table) -> FloatArray:
        """The figure [draws] for weights [cells, draws]."""
        return self._figure(weights)

    def contrast(self, member: Table) -> Contrast:
        """The figure inside and outside for membership [cells, draws]."""
        return Contrast(self._figure(member), self._figure(1 - member))


class Ratio:
    """A sum over images by another: a rate, a mean."""

    def __init__(self, cells: Cells, above: FloatArray, below: FloatArray, finer: FloatArray | None) -> None:
        self._cells = cells
        self._above, self._below = cells.total(above), cells.total(below)
        self._finer = None if finer is None else cells.total(finer)
        self._used = np.flatnonzero((self._below != 0) | (self._above != 0))
        self._patients = None if cells.alone else _summing(cells.patient[self._used])

    def figure(self, weights: Table) -> FloatArray:
        """The figure [draws] for weights [cells, draws]."""
        return _divide(self._above @ weights, self._below @ weights)

    def contrast(self, member: Table) -> Contrast:
        """The figure inside and outside for membership [cells, draws]."""
        below = self._below @ member
        rest = self._below.sum() - below
        above = self._above @ member
        inside, outside = _divide(above, below), _divide(self._above.sum() - above, rest)
        finer = None
        if self._finer is not None:
            part = self._finer @ member
            finer = _divide(part, below) - _divide(self._finer.sum() - part, rest)
        return Contrast(inside, outside, self._variance(member, (inside, outside), (below, rest)), finer)

    def _variance(
        self, member: Table, figures: tuple[FloatArray, FloatArray], sizes: tuple[FloatArray, FloatArray]
    ) -> FloatArray:
        if self._patients is None:
            moments = [self._above**2, self._above * self._below, self._below**2]
            own = [m @ member for m in moments]
            other = [m.sum() - o for m, o in zip(moments, own, strict=True)]
            parts = zip((own, other), figures, sizes, strict=True)
            return sum(  # type: ignore[return-value]  # the sum of two arrays, which starts from 0
                _divide(aa - 2 * v * ab + v * v * bb, size**2) for (aa, ab, bb), v, size in parts
            )
        used = member[self._used]
        above, below = self._above[self._used, None], self._below[self._used, None]
        influence = used * _divide(above - figures[0] * below, sizes[0])
        influence -= (1 - used) * _divide(above - figures[1] * below, sizes[1])
        return _squares(self._patients @ influence)


class Area:
    """The area under the ROC curve, by placements in sorted order."""

    def __init__(self, cells: Cells, scores: FloatArray, truth: BoolArray) -> None:
        self._ones, self._zeros = _side(cells, scores, truth), _side(cells, scores, ~truth)
        self._lower = _between(self._zeros.scores, self._ones.scores)
        self._upper = _between(self._ones.scores, self._zeros.scores)
        owners = cells.patient[np.concatenate([self._ones.owner, self._zeros.owner])]
        self._patients = None if len(np.unique(owners)) == len(owners) else _summing(owners)

    def figure(self, weights: Table) -> FloatArray:
        """The figure [draws] for weights [cells, draws]."""
        under = _running(weights[self._zeros.cell])
        ones = weights[self._ones.owner]
        wins = _dot(ones, self._ones.sums(_placed(under, self._lower)))
        return _divide(wins, _sum(ones, self._ones.images) * under[-1])

    def contrast(self, member: Table) -> Contrast:
        """The figure inside and outside for membership [cells, draws]."""
        under, over = _running(member[self._zeros.cell]), _running(member[self._ones.cell])
        # For every positive cell the group's negatives below it; for every negative one, its positives above.
        below = self._ones.sums(_placed(under, self._lower))
        above = self._zeros.images[:, None] * over[-1] - self._zeros.sums(_placed(over, self._upper))
        every = (self._ones.sums(_half(self._lower)[:, None]), self._zeros.sums(_half(self._upper)[:, None]))
        every = (every[0], self._zeros.images[:, None] * np.float32(len(self._ones.cell)) - every[1])
        ones, zeros = member[self._ones.owner], member[self._zeros.owner]
        sizes = (over[-1], under[-1])
        rest = (len(self._ones.cell) - over[-1], len(self._zeros.cell) - under[-1])
        wins = _dot(ones, below)
        # Everybody's wins, less those in which one of the two is inside.
        others = (
            every[0].sum(dtype=np.float64) - _sum(ones, every[0][:, 0]) - _sum(zeros, every[1][:, 0]) + wins
        )
        figures = _divide(wins, sizes[0] * sizes[1]), _divide(others, rest[0] * rest[1])
        first = _influence(ones, (below, every[0] - below), (figures, sizes, rest), self._ones.images)
        turned = (figures, sizes[::-1], rest[::-1])
        second = _influence(zeros, (above, every[1] - above), turned, self._zeros.images)
        if self._patients is None:
            return Contrast(*figures, _squares(first) + _squares(second))
        return Contrast(*figures, _squares(self._patients @ np.concatenate([first, second])))


@dataclass(frozen=True)
class _Side:
    """The images of one class by rising score, and the cells that have any."""

    scores: FloatArray
    cell: IntArray
    owner: IntArray
    """[cells with such an image]"""
    images: Table
    """[the same] how many of them."""
    gather: csr_array | None
    """Sums images to cells; None where each has one, in the order of `owner`."""

    def sums(self, table: Table) -> Table:
        """From [images, draws] to [cells with such an image, draws]."""
        summed: Table = table if self.gather is None else self.gather @ table
        return summed


def _side(cells: Cells, scores: FloatArray, which: BoolArray) -> _Side:
    image = np.flatnonzero(which)
    image = image[np.argsort(scores[image], kind="stable")]
    cell = cells.cell[image]
    owner, code, count = np.unique(cell, return_inverse=True, return_counts=True)
    if len(owner) == len(cell):
        return _Side(scores[image], cell, cell, np.ones(len(cell), dtype=np.float32), None)
    return _Side(scores[image], cell, owner, count.astype(np.float32), _summing(code.reshape(-1)))


def _between(sorted_values: FloatArray, values: FloatArray) -> tuple[IntArray, IntArray]:
    """How many of `sorted_values` lie below each of `values`, and how many not above."""
    low, high = (np.searchsorted(sorted_values, values, side=side) for side in ("left", "right"))
    return low, high


def _running(weights: Table) -> Table:
    """Sums over the first rows: row k is the sum of k rows. One row after another is faster than cumsum."""
    total = np.empty((len(weights) + 1, weights.shape[1]), dtype=weights.dtype)
    total[0] = 0
    for row in range(len(weights)):
        np.add(total[row], weights[row], out=total[row + 1])
    return total


def _placed(running: Table, place: tuple[IntArray, IntArray]) -> Table:
    """Weight below each value, ties by half."""
    low, high = place
    if np.array_equal(low, high):
        return running[low]
    half: Table = (running[low] + running[high]) * np.float32(0.5)
    return half


def _half(place: tuple[IntArray, IntArray]) -> Table:
    """The same where everybody has weight 1."""
    return ((place[0] + place[1]) / 2).astype(np.float32)


_Both = tuple[FloatArray, FloatArray]


def _influence(
    member: Table, wins: tuple[Table, Table], about: tuple[_Both, _Both, _Both], images: Table
) -> Table:
    """Each cell's share in the gap: what it adds inside, less what it adds outside.

    Args:
        member: [cells, draws] of one class.
        wins: [cells, draws] against the other class inside, and outside.
        about: the figures inside and outside; own and other class inside; the same outside.
        images: [cells] of this class.
    """
    figures, sizes, rest = about
    inside = wins[0] * _single(_divide(1, sizes[0] * sizes[1]))
    inside -= images[:, None] * _single(_divide(figures[0], sizes[0]))
    outside = wins[1] * _single(_divide(1, rest[0] * rest[1]))
    outside -= images[:, None] * _single(_divide(figures[1], rest[0]))
    # Inside where the cell is a member, else less outside.
    inside += outside
    inside *= member
    inside -= outside
    return inside


def _single(values: FloatArray) -> Table:
    return values.astype(np.float32)


def _dot(one: Table, two: Table) -> FloatArray:
    """Sum over rows of the products."""
    summed: FloatArray = np.einsum("ij,ij->j", one, two).astype(np.float64)
    return summed


def _sum(table: Table, weights: Table) -> FloatArray:
    return (weights @ table).astype(np.float64)


def _squares(table: Table) -> FloatArray:
    return _dot(table, table)


def _summing(owner: IntArray) -> csr_array:
    """[owners, rows] that sums the rows of one owner."""
    codes = np.unique(owner, return_inverse=True)[1].reshape(-1)
    ones = np.ones(len(owner), dtype=np.float32)
    return csr_array((ones, (codes, np.arange(len(owner)))))


def _divide(above: npt.ArrayLike, below: npt.ArrayLike) -> FloatArray:
    """Not a number where there is nothing to divide by."""
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    ratio: FloatArray = np.where(b > 0, a / np.where(b > 0, b, 1.0), np.nan)
    return ratio
