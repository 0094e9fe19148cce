"""Which groups of patients are large enough for figures about them to leave the hospital.

A group is suppressed, figures and counts, when it has fewer positive or fewer negative patients than
the minimum cell. Its size must not follow by subtraction either: while the suppressed levels of one
attribute, taken together, are a single level or a small cell, the smallest other level goes too.

The same goes for the bins of a calibration curve: what the bins shown leave over of all patients is never
a small cell. Levels have no curve, because bin by bin they could be taken from that of the whole.

A hospital whose patients are all of one class by design has no cell of the other class to protect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.messages import CalibrationBin


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
    levels: Mapping[str, Cell],
    rest: Callable[[frozenset[str]], Cell],
    min_cell: int,
    *,
    one_class: bool = False,
) -> frozenset[str]:
    """The levels of one attribute that must not be shown, complementary suppression included.

    Args:
        levels: the patients of each level; one patient may be in several.
        rest: the patients who are in none of these levels: what subtraction would give.
        min_cell: fewest patients of either class.
        one_class: the whole hospital has no patient of one of the classes.
    """
    hidden = {name for name, cell in levels.items() if not releasable(cell, min_cell, one_class=one_class)}
    while hidden and len(hidden) < len(levels):
        shown = frozenset(levels) - hidden
        if len(hidden) > 1 and releasable(rest(shown), min_cell, one_class=one_class):
            break
        hidden.add(min(shown, key=lambda name: (levels[name].positives + levels[name].negatives, name)))
    return frozenset(hidden)


def shown_bins(bins: Sequence[CalibrationBin], patients: int, min_cell: int) -> tuple[CalibrationBin, ...]:
    """The bins of a curve that may be shown, in their order.

    Args:
        bins: every bin that is not empty.
        patients: of all bins together, which is told beside them.
        min_cell: fewest patients of a bin, and of what is left over.
    """
    shown = [one for one in bins if one.patients >= min_cell]
    while shown and 0 < patients - sum(one.patients for one in shown) < min_cell:
        shown.remove(min(shown, key=lambda one: one.patients))
    return tuple(shown)
