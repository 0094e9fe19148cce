"""What chance alone does to a gap: levels change places within their strata, and the gap is taken again.

For a gap d_0 and those of n permutations d_1 ... d_n:

    t_i = |d_i - c| / s_i        c: mean of all d_i; s_i^2 = w v_i + (1 - w) V
    p   = (1 + #{i >= 1: t_i > t_0, or equal and before it by chance}) / (1 + n)

v_i is the variance of d_i with patients as clusters, V the variance of all d_i, and w = k / (k + 10) for k patients
that the smaller side of the gap rests on. Every part treats the observed gap and the permuted ones alike, so p is
exact where levels are exchangeable within strata, with any number of permutations (Phipson and Smyth 2010; Hemerik
and Goeman 2018). Dividing by v_i keeps p right in large groups where they are not: when one group's scores are more
spread, or its patients have more images, and only the figure is the same (Janssen 1997; Pauly, Asendorf and Konietschke
2016). In small groups v_i is hardly known (it is 0 for a perfect ranking), and V takes its place. A figure without
v_i has w = 0. The centre c is not 0 where strata differ: a group that is mostly at a weak site is expected to be weaker.

Equal t are ordered by a finer gap of the same direction (that of ranks, where the figure counts calls), then by a coin:
p is uniform under the null even when few values are possible, where counting all ties against the gap would
make it too large. Two runs with the same generator give the same p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from common.models.influence import IntArray
from common.statistics.cells import Cells
from common.types import FloatArray

FEW: Final = 10
"""Patients at which the own variance of a gap and that of all permutations count the same."""
_SAME: Final = 1e-6
"""Standardised gaps that differ by less are equal: sums of single precision."""


@dataclass(frozen=True)
class Band:
    """Where chance alone puts a gap, and the centre it is seen from."""

    centre: float
    low: float
    high: float

    def turned(self) -> Band:
        """The same for the gap the other way round."""
        return Band(-self.centre, -self.high, -self.low)


@dataclass(frozen=True)
class Drawn:
    """A gap, first as it was observed, then under permutations, [1 + draws] each."""

    gap: FloatArray
    variance: FloatArray | None
    finer: FloatArray | None

    def and_then(self, more: Drawn) -> Drawn:
        """With further permutations."""
        pairs = ((self.gap, more.gap), (self.variance, more.variance), (self.finer, more.finer))
        gap, variance, finer = (None if a is None or b is None else np.concatenate([a, b]) for a, b in pairs)
        return Drawn(self.gap if gap is None else gap, variance, finer)


@dataclass(frozen=True)
class Null:
    """What the permutations say of one gap."""

    p: float
    centre: float
    scale: float
    """Of the observed gap."""
    extremes: FloatArray
    """All t, sorted."""

    def band(self, alpha: float) -> Band:
        """The gaps that chance alone exceeds in a share `alpha` of cases."""
        rank = int(np.ceil((1 - alpha) * len(self.extremes) - 1e-9)) - 1
        reach = float(self.extremes[min(max(rank, 0), len(self.extremes) - 1)]) * self.scale
        return Band(self.centre, self.centre - reach, self.centre + reach)


def shuffled(cells: Cells, rng: np.random.Generator, draws: int) -> IntArray:
    """The level of each cell, [cells, draws], after levels changed places within strata.

    Levels are sorted by random numbers of at least 24 bits that stand above them in one integer. Where two numbers are
    equal, the order of the levels decides, and that order is drawn anew each time.
    """
    bits = max(1, (len(cells.names) - 1).bit_length())
    whole, kind = (32, np.uint32) if bits <= 8 else (64, np.uint64)
    low = kind((1 << bits) - 1)
    turned = rng.integers(0, 1 << bits, size=(draws, 1, 1), dtype=kind)
    levels = np.empty((cells.count, draws), dtype=np.uint8 if bits <= 8 else np.int64)
    order = np.argsort(cells.stratum, kind="stable")
    sizes = np.bincount(cells.stratum)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for size in np.unique(sizes):
        # Strata of one size are shuffled together: [draws, strata, cells of one].
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        keys = rng.integers(0, 1 << whole, size=(draws, *members.shape), dtype=kind)
        keys &= ~low
        keys |= cells.level[members].astype(kind) ^ turned
        keys.sort(axis=2)
        keys &= low
        keys ^= turned
        levels[members.reshape(-1)] = keys.reshape(draws, -1).T
    return levels


def tested(drawn: Drawn, patients: int, rng: np.random.Generator) -> Null | None:
    """The p-value of a gap; None where it does not exist, or no permutation changes it.

    Args:
        drawn: the gap, observed and permuted.
        patients: those that the smaller side of the gap rests on.
        rng: for the coins.
    """
    gap = drawn.gap
    if not np.isfinite(gap[0]):
        return None
    known = np.isfinite(gap)
    centre, spread = float(gap[known].mean()), float(gap[known].var())
    if spread <= 1e-14:
        return None
    share = 0.0 if drawn.variance is None else patients / (patients + FEW)
    own = 0.0 if drawn.variance is None else np.where(np.isfinite(drawn.variance), drawn.variance, spread)
    scale = np.sqrt(share * own + (1 - share) * spread) * np.ones(len(gap))
    # Where a permutation leaves no figure it counts against the gap.
    t = np.where(known, np.abs(gap - centre) / scale, np.inf)
    t = np.round(t / _SAME) * _SAME
    finer: FloatArray = np.zeros(len(gap))
    if drawn.finer is not None:
        finer = np.abs(drawn.finer - np.nanmean(drawn.finer)).astype(np.float64)
        finer = np.round(np.where(np.isfinite(finer), finer, np.inf), 6)
    coin = rng.random(len(gap))
    beyond = (t > t[0]) | ((t == t[0]) & ((finer > finer[0]) | ((finer == finer[0]) & (coin > coin[0]))))
    return Null((1 + int(beyond[1:].sum())) / len(gap), centre, float(scale[0]), np.sort(t))


def one_sided(values: FloatArray, rng: np.random.Generator) -> float:
    """The p-value of a value that is large when something is wrong; first the observed one, then permuted ones."""
    values = np.round(np.where(np.isfinite(values), values, np.inf), 9)
    coin = rng.random(len(values))
    beyond = (values > values[0]) | ((values == values[0]) & (coin > coin[0]))
    return (1 + int(beyond[1:].sum())) / len(values)


def holm(p: FloatArray) -> FloatArray:
    """p-values after Holm 1979: the chance of any false alarm among them all is at most the level."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
