"""What seeds say together of each hospital, of each pair of hospitals, and of telling hospitals apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from common.messages import Estimate
from common.statistics.permutation import holm
from simulations.compare.cells import Cell, Compared, over
from simulations.splits import corrected_p


@dataclass(frozen=True)
class Judged:
    """A difference over seeds, and its p-value after Holm over all that are judged with it."""

    value: Estimate
    holm: float
    """1 where one seed leaves nothing to be judged."""


def cells_of(record: Compared, way: str) -> list[Cell]:
    """The cells of a way that ended well, seed by seed."""
    return [cell for cell in record.cells if cell.way == way and not cell.failed]


def at(record: Compared, way: str, site: str) -> Estimate | None:
    """A way's AUROC at one hospital over seeds."""
    return over(_known(cells_of(record, way), lambda cell: cell.sites.get(site)), record.ratio, (0.0, 1.0))


def called(record: Compared, way: str, site: str) -> tuple[float | None, float | None]:
    """Sensitivity and specificity at one hospital at the one threshold, means over seeds."""
    cells = cells_of(record, way)
    return (
        _mean(_known(cells, lambda cell: cell.sensitivity.get(site))),
        _mean(_known(cells, lambda cell: cell.specificity.get(site))),
    )


def told(record: Compared, way: str, source: str) -> float | None:
    """How well hospitals are told apart under a way, mean over seeds."""
    return _mean(_known(cells_of(record, way), lambda cell: cell.read.get(source)))


def changes(record: Compared, base: str) -> dict[tuple[str, str], Judged]:
    """Every way's change from another at every hospital that trains, paired by seed; Holm over all of them.

    Args:
        record: the comparison.
        base: the way that the others are compared with.

    Returns:
        By way and hospital.
    """
    before = {cell.seed: cell for cell in cells_of(record, base)}
    points: dict[tuple[str, str], list[float]] = {}
    for row in record.rows:
        for site in trained(record) if row.way != base else ():
            found = [
                here - there
                for cell in cells_of(record, row.way)
                if cell.seed in before
                and (here := cell.sites.get(site)) is not None
                and (there := before[cell.seed].sites.get(site)) is not None
            ]
            if found:
                points[row.way, site] = found
    adjusted = _adjusted([corrected_p(of, record.ratio) for of in points.values()])
    return {
        key: Judged(value, p)
        for (key, of), p in zip(points.items(), adjusted, strict=True)
        if (value := over(of, record.ratio, (-1.0, 1.0))) is not None
    }


def gaps_between(record: Compared) -> dict[tuple[str, tuple[str, str]], Judged]:
    """Every gap between two hospitals under every way; Holm over all of them.

    The permutation tests of the seeds are of the same patients, dealt anew: twice their median p-value is one whatever
    their dependence (Meinshausen, Meier, Buehlmann, "p-values for high-dimensional regression", JASA 104, 2009).

    Returns:
        By way and pair.
    """
    found: dict[tuple[str, tuple[str, str]], list[tuple[float, float]]] = {}
    for row in record.rows:
        for cell in cells_of(record, row.way):
            for pair in cell.pairs:
                found.setdefault((row.way, (pair.one, pair.other)), []).append((pair.gap, pair.p))
    adjusted = _adjusted([together([p for _, p in of]) for of in found.values()])
    return {
        key: Judged(value, p)
        for (key, of), p in zip(found.items(), adjusted, strict=True)
        if (value := over([gap for gap, _ in of], record.ratio, (-1.0, 1.0))) is not None
    }


def together(values: Sequence[float]) -> float:
    """One p-value of many that depend on each other in any way; one alone is itself."""
    return values[0] if len(values) == 1 else min(1.0, 2 * median(values))


def trained(record: Compared) -> list[str]:
    """The hospitals that train."""
    return [name for name in record.hospitals if name not in record.external]


def _adjusted(values: Sequence[float]) -> list[float]:
    return [float(p) for p in holm(np.array(values))] if values else []


def _known(cells: Sequence[Cell], of: Callable[[Cell], float | None]) -> list[float]:
    return [value for cell in cells if (value := of(cell)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
