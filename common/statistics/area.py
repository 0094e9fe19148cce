"""AUROC of a group and of everybody else, for many ways to be a group at once.

By placements (DeLong, DeLong and Clarke-Pearson 1988), with patients as clusters in the variance (Obuchowski 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from common.models.influence import BoolArray, IntArray
from common.statistics.cells import Cells
from common.statistics.draws import Table, divide, dot, single, squares, summing, weighed
from common.statistics.measures import Contrast
from common.types import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_MANY: Final = 64
"""Draws from which on a row is worth a call."""


class Area:
    """The area under the ROC curve, by placements in sorted order."""

    def __init__(self, cells: Cells, scores: FloatArray, truth: BoolArray) -> None:
        self._ones, self._zeros = _side(cells, scores, truth), _side(cells, scores, ~truth)
        self._lower = _between(self._zeros.scores, self._ones.scores)
        self._upper = _between(self._ones.scores, self._zeros.scores)
        owners = cells.patient[np.concatenate([self._ones.owner, self._zeros.owner])]
        self._patients = None if len(np.unique(owners)) == len(owners) else summing(owners)

    def figure(self, weights: Table) -> FloatArray:
        """The figure [draws] for weights [cells, draws]."""
        under = _running(weights[self._zeros.cell])
        ones = weights[self._ones.owner]
        wins = dot(ones, self._ones.sums(_placed(under, self._lower)))
        return divide(wins, weighed(ones, self._ones.images) * under[-1])

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
        wins = dot(ones, below)
        # Everybody's wins, less those in which one of the two is inside.
        others = (
            every[0].sum(dtype=np.float64)
            - weighed(ones, every[0][:, 0])
            - weighed(zeros, every[1][:, 0])
            + wins
        )
        figures = divide(wins, sizes[0] * sizes[1]), divide(others, rest[0] * rest[1])
        turned = (figures, sizes[::-1], rest[::-1])
        if self._patients is None:
            variance = _apart(ones, (below, every[0][:, 0]), (figures, sizes, rest), self._ones.images)
            variance += _apart(zeros, (above, every[1][:, 0]), turned, self._zeros.images)
            return Contrast(*figures, variance)
        first = _influence(ones, (below, every[0] - below), (figures, sizes, rest), self._ones.images)
        second = _influence(zeros, (above, every[1] - above), turned, self._zeros.images)
        return Contrast(*figures, squares(self._patients @ np.concatenate([first, second])))


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
    return _Side(scores[image], cell, owner, count.astype(np.float32), summing(code.reshape(-1)))


def _between(sorted_values: FloatArray, values: FloatArray) -> tuple[IntArray, IntArray]:
    """How many of `sorted_values` lie below each of `values`, and how many not above."""
    low, high = (np.searchsorted(sorted_values, values, side=side) for side in ("left", "right"))
    return low, high


def _running(weights: Table) -> Table:
    """Sums over the first rows: row k is the sum of k rows. One row after another is faster than cumsum."""
    total = np.zeros((len(weights) + 1, weights.shape[1]), dtype=weights.dtype)
    if weights.shape[1] < _MANY:
        np.cumsum(weights, axis=0, out=total[1:])
        return total
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


def _apart(
    member: Table, wins: tuple[Table, Table], about: tuple[_Both, _Both, _Both], images: Table
) -> FloatArray:
    """What one class adds to the variance of the gap [draws] where nobody is on both sides.

    The sum of squares of `_influence`, multiplied out, so that most of it is matrix products.

    Args:
        member: [cells, draws] of the class.
        wins: [cells, draws] against the other class inside; [cells] against all of it.
        about: as for `_influence`.
        images: [cells] of this class.
    """
    figures, sizes, rest = about
    won, every = wins
    mine = member * won
    parts = np.stack([images, every])
    (own, own_every), (total, total_every) = (parts @ table for table in (mine, won))
    squares, own_squares = dot(won, won), dot(mine, won)
    counts = np.stack([images * images, images * every, every * every])
    inside, everybody = (counts @ member).astype(np.float64), counts.sum(axis=1, dtype=np.float64)[:, None]
    outside = everybody - inside
    others = squares - own_squares - 2.0 * (total_every - own_every) + outside[2]
    crossed = outside[1] - (total - own)
    found = _spread((own_squares, own, inside[0]), figures[0], (sizes[0], sizes[1]))
    found += _spread((others, crossed, outside[0]), figures[1], (rest[0], rest[1]))
    return found


def _spread(sums: tuple[FloatArray, FloatArray, FloatArray], figure: FloatArray, sizes: _Both) -> FloatArray:
    """Sum of squares of wins / (own x other) - figure x images / own, from the sums of its three products."""
    other = np.asarray(sizes[1], dtype=np.float64)
    squares = divide(sums[0], other * other) - 2 * figure * divide(sums[1], other) + figure * figure * sums[2]
    return divide(np.maximum(squares, 0.0), np.asarray(sizes[0], dtype=np.float64) ** 2)


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
    inside = wins[0] * single(divide(1, sizes[0] * sizes[1]))
    inside -= images[:, None] * single(divide(figures[0], sizes[0]))
    outside = wins[1] * single(divide(1, rest[0] * rest[1]))
    outside -= images[:, None] * single(divide(figures[1], rest[0]))
    # Inside where the cell is a member, else less outside.
    inside += outside
    inside *= member
    inside -= outside
    return inside
