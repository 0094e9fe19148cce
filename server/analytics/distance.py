"""Distributions of parts of an analysis, and how far apart two of them are.

Counts that left in fives stand for the middle of their five. How many of a label are hidden in a table follows from how many have
it. They are given to the hidden bins as the other parts have them there, so that what is hidden can make two parts
look alike, never different.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from common.analytics import UNLABELLED
from common.cells import STEP
from server.analytics.records import AnalysisRecord, Part

Row = npt.NDArray[np.float64]
"""Patients by bin; NaN where it is not known."""
_MIDDLE = (STEP - 1) / 2
_ROUNDING = (STEP**2 - 1) / 12
"""Variance of what rounding to fives took away."""
_DRAWS = 400
_LEAST_EXPECTED = 5.0
"""Patients expected in a cell below which bins are put together (Cochran 1954)."""


@dataclass(frozen=True)
class Judged:
    """One test of one table."""

    p: float
    size: float
    """Cramer's V, corrected, in [0, 1]; of two rows without noise."""


def table_of(part: Part, axis: str) -> Row | None:
    """Patients [labels, bins], NaN where held back; None where the table was not told."""
    cells = part.tables.get(axis)
    if cells is None:
        return None
    rows = np.array([[math.nan if cell is None else float(cell) for cell in row] for row in cells])
    return rows if part.noisy else np.where(rows > 0, rows + _MIDDLE, rows)


def spread_of(part: Part, axis: str) -> Row | None:
    """Patients of all labels by bin; of labels that are held back altogether nothing is known."""
    table = table_of(part, axis)
    if table is None:
        return None
    known = [row for row in table if not np.isnan(row).all()]
    return np.sum(known, axis=0) if known else None


def labels_of(part: Part) -> Row:
    """Patients by label; 0 for a label that is held back."""
    table = table_of(part, "patients")
    return np.zeros(0) if table is None else np.nan_to_num(table[:, 0])


def prevalence(record: AnalysisRecord, parts: Iterable[Part]) -> tuple[float, float]:
    """Patients who are ill and patients who are not, of these parts together; the unlabelled are neither.

    A label that a part holds back while it tells another has as many patients there as can be held back: nothing can
    look rarer than it is.
    """
    ill = well = 0.0
    for part in parts:
        table = table_of(part, "patients")
        if table is None or np.isnan(table[_labelled(record), 0]).all():
            continue
        for place in _labelled(record):
            count = float(np.nan_to_num(table[place, 0], nan=record.min_cell - 1.0))
            ill, well = (ill + count, well) if place in record.positive else (ill, well + count)
    return ill, well


def _labelled(record: AnalysisRecord) -> list[int]:
    return [place for place, name in enumerate(record.labels) if name != UNLABELLED]


def filled(record: AnalysisRecord, axis: str) -> dict[str, Row]:
    """Patients [labels, bins] of every part that tells anything of this axis, by the part's name; nothing is NaN.

    Labels that a part holds back altogether are 0 there.
    """
    told = {part.name: (part, table) for part in record.parts if (table := table_of(part, axis)) is not None}
    if not told:
        return {}
    known = np.array([table for _, table in told.values()])
    whole = np.array([labels_of(part) for part, _ in told.values()])
    of = np.where(np.isnan(known), 0.0, whole[:, :, None]).sum(axis=0)
    usual = np.divide(np.nansum(known, axis=0), of, out=np.full(of.shape, math.nan), where=of > 0)
    return {name: _filled(table, labels_of(part), _completed(usual)) for name, (part, table) in told.items()}


def _completed(usual: Row) -> Row:
    """Shares [labels, bins]; bins that nobody tells share equally what the others leave."""
    out = usual.copy()
    for row in out:
        gone = np.isnan(row)
        if gone.any():
            row[gone] = max(0.0, 1.0 - np.nansum(row)) / gone.sum()
    return out


def _filled(table: Row, labels: Row, usual: Row) -> Row:
    """A table with its hidden patients in its hidden bins.

    Args:
        table: [labels, bins], NaN where held back.
        labels: patients of each label.
        usual: shares [labels, bins] of the parts that tell.
    """
    out = np.nan_to_num(table)
    for place, row in enumerate(table):
        gone = np.isnan(row)
        left = labels[place] - np.nansum(row)
        if gone.any() and left > 0:
            share = usual[place] * gone
            out[place] += left * (share / share.sum() if share.sum() > 0 else gone / gone.sum())
    return out


def against(record: AnalysisRecord, axis: str) -> dict[str, tuple[Row, Row]]:
    """Patients by bin of each part and of all others together, of the labels that everybody tells something of.

    Whoever tells nothing at all, as a very small hospital, is left out: else nobody could be compared because of it.
    """
    tables = {name: table for name, table in filled(record, axis).items() if table.sum() > 0}
    if len(tables) < 2:
        return {}
    labels = np.min([table.sum(axis=1) for table in tables.values()], axis=0) > 0
    rows = {name: table[labels].sum(axis=0) for name, table in tables.items()}
    whole = np.sum(list(rows.values()), axis=0)
    return {name: (row, whole - row) for name, row in rows.items() if 0 < row.sum() < whole.sum()}


def divergence(one: Row, other: Row) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1 (Lin 1991); NaN where one is empty."""
    if one.sum() <= 0 or other.sum() <= 0:
        return math.nan
    p, q = one / one.sum(), other / other.sum()
    return float(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2)


def chance_of(one: Row, other: Row, seed: int) -> float:
    """The divergence that two groups of these sizes from one population stay below in nineteen of twenty draws."""
    sizes = [int(row.sum()) for row in (one, other)]
    if min(sizes) <= 0:
        return math.nan
    rng = np.random.default_rng(seed)
    share = (one + other) / (one + other).sum()
    draws = [rng.multinomial(size, share, _DRAWS) / size for size in sizes]
    found = _entropies((draws[0] + draws[1]) / 2) - (_entropies(draws[0]) + _entropies(draws[1])) / 2
    return float(np.quantile(found, 0.95))


def judged(rows: Row, noise: Row | None = None) -> Judged | None:
    """Whether the rows of a table are drawn from one population: chi-squared, with what rounding and noise add to its spread.

    Bins are put together until a cell may be expected to hold five patients. V is corrected for small tables (Bergsma 2013).

    Args:
        rows: patients [groups, bins].
        noise: variance of the noise in each cell of each group [groups].

    Returns:
        None where fewer than two groups or bins are left.
    """
    kept, bins = _put_together(rows[rows.sum(axis=1) > 0])
    if min(kept.shape) < 2:
        return None
    total = kept.sum()
    expected = np.outer(kept.sum(axis=1), kept.sum(axis=0)) / total
    more = bins * (_ROUNDING if noise is None else np.maximum(noise, _ROUNDING)[: len(kept), None])
    plain = float(((kept - expected) ** 2 / expected).sum())
    statistic = float(((kept - expected) ** 2 / (expected + more)).sum())
    r, k = kept.shape
    freedom = (r - 1) * (k - 1)
    if noise is not None:
        statistic *= freedom / _kept_by_margins(kept)
    phi = max(0.0, plain / total - freedom / (total - 1))
    smaller = min(r - (r - 1) ** 2 / (total - 1), k - (k - 1) ** 2 / (total - 1)) - 1
    return Judged(float(chi2.sf(statistic, freedom)), math.sqrt(phi / smaller) if smaller > 0 else 0.0)


def _kept_by_margins(rows: Row) -> float:
    """What equal noise in every cell leaves of itself, in cells, once a table's own margins are taken off it.

    With (I - w 1')(x)(I - v 1') for shares w and v of the margins, the sum of squares of its entries; at least the degrees of
    freedom, and more the more uneven the margins are.
    """
    found = 1.0
    for axis, count in zip((1, 0), rows.shape, strict=True):
        share = rows.sum(axis=axis) / rows.sum()
        found *= count - 2 + count * float((share**2).sum())
    return found


def holm(ps: list[float]) -> list[float]:
    """P-values corrected for being several (Holm 1979), in their order."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, most = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = most
    return corrected


def _put_together(rows: Row) -> tuple[Row, Row]:
    """Bins of which some cell is expected to hold few, as one; and how many bins each of the result is made of."""
    if rows.size == 0 or rows.sum() <= 0:
        return np.zeros((0, 0)), np.zeros(0)
    rows = rows[:, rows.sum(axis=0) > 0]
    shares = rows.sum(axis=1) / rows.sum()
    few = shares.min() * rows.sum(axis=0) < _LEAST_EXPECTED
    merged, bins = rows[:, ~few], np.ones(int((~few).sum()))
    rest = rows[:, few].sum(axis=1, keepdims=True)
    if few.any() and shares.min() * rest.sum() >= _LEAST_EXPECTED:
        return np.hstack([merged, rest]), np.append(bins, few.sum())
    return merged, bins


def _entropy(shares: Row) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())


def _entropies(shares: Row) -> Row:
    """Of each row, in bits."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    out: Row = -(shares * logs).sum(axis=1)
    return out
