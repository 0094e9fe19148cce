"""The figures of a group and of everybody else, for many ways to be a group at once.

Membership is [cells, draws], 1 inside the group and 0 outside; weights may be any counts. Draws lie
in the last axis, so that a row is one cell and sums over cells are matrix products.

Rates and the Brier score are ratios and bring the variance of the gap with patients as clusters (Rao and Scott 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from common.statistics.cells import Cells
from common.statistics.draws import Table, divide, single, squares, summing
from common.types import FloatArray


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
        top, bottom = cells.total(above), cells.total(below)
        rows = [top, bottom, top * top, top * bottom, bottom * bottom]
        rows += [] if finer is None else [cells.total(finer) / max(len(finer), 1)]
        # In single precision: the sums of counts are exact, those of squared errors to seven places.
        self._rows = np.stack(rows).astype(np.float32)
        self._totals = np.stack(rows).sum(axis=1)[:, None]
        self._used = np.flatnonzero((bottom != 0) | (top != 0))
        self._patients = None if cells.alone else summing(cells.patient[self._used])

    def figure(self, weights: Table) -> FloatArray:
        """The figure [draws] for weights [cells, draws]."""
        above, below = self._rows[:2] @ weights
        return divide(above, below)

    def contrast(self, member: Table) -> Contrast:
        """The figure inside and outside for membership [cells, draws]."""
        own = (self._rows @ member).astype(np.float64)
        other = self._totals - own
        inside, outside = divide(own[0], own[1]), divide(other[0], other[1])
        finer = divide(own[5], own[1]) - divide(other[5], other[1]) if len(own) > 5 else None
        if self._patients is None:
            variance: FloatArray = _ratio_variance(own, inside) + _ratio_variance(other, outside)
        else:
            variance = self._paired(member, (inside, outside), (own[1], other[1]))
        return Contrast(inside, outside, variance, finer)

    def _paired(
        self, member: Table, figures: tuple[FloatArray, FloatArray], sizes: tuple[FloatArray, FloatArray]
    ) -> FloatArray:
        """The variance where some patients are on both sides."""
        used = member[self._used]
        above, below = self._rows[0, self._used, None], self._rows[1, self._used, None]
        influence = used * (above - single(figures[0]) * below) * single(divide(1, sizes[0]))
        influence -= (1 - used) * (above - single(figures[1]) * below) * single(divide(1, sizes[1]))
        return squares(influence if self._patients is None else self._patients @ influence)


def _ratio_variance(sums: FloatArray, figure: FloatArray) -> FloatArray:
    squares = sums[2] - 2 * figure * sums[3] + figure * figure * sums[4]
    return divide(np.maximum(squares, 0.0), sums[1] * sums[1])
