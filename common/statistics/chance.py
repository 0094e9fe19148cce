"""Every gap of a family under permutations, a block of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from common.models.influence import IntArray
from common.statistics.catalogue import measure_of
from common.statistics.findings import Settings
from common.statistics.groups import Prepared
from common.statistics.measures import Contrast, Measure
from common.statistics.permutation import Drawn, shuffled
from common.statistics.sample import Sample
from common.types import FloatArray

_NUMBERS: Final = 400_000
"""Cells times draws of one block: what a core's cache holds."""

Measures = dict[str, Measure]


@dataclass(frozen=True)
class Table:
    """One family under permutations; the observed value first in every array."""

    measures: Measures
    gaps: dict[tuple[str, int], Drawn] = field(default_factory=dict)
    """By metric and level."""
    inside: dict[tuple[str, int], FloatArray] = field(default_factory=dict)
    """The group's own figure."""


def measures_of(sample: Sample, prepared: Prepared, settings: Settings) -> Measures:
    """Every figure, ready for the cells of a family."""
    return {metric: measure_of(metric, sample, prepared.cells) for metric in settings.metrics}


def permuted(
    sample: Sample, prepared: Prepared, settings: Settings, how: tuple[np.random.Generator, int]
) -> Table:
    """The gaps of every judged group, observed and after each permutation.

    Args:
        sample: the images.
        prepared: the family.
        settings: the metrics.
        how: generator, and number of permutations.
    """
    table = Table(measures_of(sample, prepared, settings))
    return _filled(table, prepared, tuple(table.measures), _blocks(prepared, *how, first=True))


def longer(
    table: Table, prepared: Prepared, metrics: Sequence[str], how: tuple[np.random.Generator, int]
) -> Table:
    """The same for some metrics after more permutations; the other metrics stay as they are."""
    return _filled(table, prepared, metrics, _blocks(prepared, *how, first=False))


def _filled(table: Table, prepared: Prepared, metrics: Sequence[str], blocks: Iterator[IntArray]) -> Table:
    own = [s for s in prepared.judged if not s.mirrored]
    parts: dict[tuple[str, int], list[Contrast]] = {(m, s.level): [] for m in metrics for s in own}
    for levels in blocks:
        for standing in own:
            member = (levels == standing.level).astype(np.float32)
            for metric in metrics:
                parts[metric, standing.level].append(table.measures[metric].contrast(member))
    gaps, inside = dict(table.gaps), dict(table.inside)
    for (metric, level), found in parts.items():
        drawn = Drawn(*(_joined([getattr(c, name) for c in found]) for name in ("gap", "variance", "finer")))
        before = table.gaps.get((metric, level))
        gaps[metric, level] = before.and_then(drawn) if before else drawn
        ways = [("inside", level), *(("outside", s.level) for s in prepared.judged if s.mirrored)]
        for name, whose in ways:
            values = np.concatenate([getattr(c, name) for c in found])
            old = table.inside.get((metric, whose))
            inside[metric, whose] = values if old is None else np.concatenate([old, values])
    return Table(table.measures, gaps, inside)


def spread(table: Table, metric: str, levels: list[int]) -> FloatArray:
    """Best less worst over some groups [1 + draws]."""
    values = np.stack([table.inside[metric, level] for level in levels])
    widest: FloatArray = values.max(axis=0) - values.min(axis=0)
    return widest


def _blocks(prepared: Prepared, rng: np.random.Generator, draws: int, *, first: bool) -> Iterator[IntArray]:
    """Levels [cells, some draws]; `first`: beginning with the observed ones."""
    cells = prepared.cells
    size = max(100, _NUMBERS // max(cells.count, 1))
    observed = cells.level[:, None]
    for start in range(0, draws, size):
        block = shuffled(cells, rng, min(size, draws - start))
        begins = first and not start
        yield np.concatenate([observed.astype(block.dtype), block], axis=1) if begins else block


def _joined(column: list[FloatArray | None]) -> Any:
    known = [part for part in column if part is not None]
    return np.concatenate(known) if known else None
