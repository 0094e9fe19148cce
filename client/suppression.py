"""Which groups of patients are large enough for figures about them to leave the hospital.

A group is suppressed, figures and counts, when it has fewer positive or fewer negative patients than
the minimum cell. Its size must not follow by subtraction either: while the suppressed levels of one
attribute, taken together, are a single level or a small cell, the smallest other level goes too.

A hospital whose patients are all of one class by design has no cell of the other class to protect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """Patients of one group; for several classes, those of the rarest."""

    positives: int
    negatives: int


def releasable(cell: Cell, min_cell: int, *, one_class: bool = False) -> bool:
    """Whether figures about this group may leave.

    Args:
        cell: its patients.
        min_cell: fewest patients of either class.
        one_class: the whole hospital has no patient of one of the classes.
    """
    return all(
        count >= min_cell or (one_class and count == 0) for count in (cell.positives, cell.negatives)
    ) and (cell.positives + cell.negatives >= min_cell)


def suppressed_levels(
    levels: Mapping[str, Cell], min_cell: int, *, one_class: bool = False
) -> frozenset[str]:
    """The levels of one attribute that must not be shown, complementary suppression included."""
    hidden = {name for name, cell in levels.items() if not releasable(cell, min_cell, one_class=one_class)}
    while hidden and len(hidden) < len(levels) and _derivable(levels, hidden, min_cell, one_class=one_class):
        shown = levels.keys() - hidden
        hidden.add(min(shown, key=lambda name: (levels[name].positives + levels[name].negatives, name)))
    return frozenset(hidden)


def _derivable(levels: Mapping[str, Cell], hidden: set[str], min_cell: int, *, one_class: bool) -> bool:
    together = Cell(
        sum(levels[name].positives for name in hidden), sum(levels[name].negatives for name in hidden)
    )
    return len(hidden) == 1 or not releasable(together, min_cell, one_class=one_class)
