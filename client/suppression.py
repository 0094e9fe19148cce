"""Which groups of patients are large enough for figures about them to leave the hospital, and how exact counts are.

A group is suppressed, figures and counts, when it has fewer positive or fewer negative patients than
the minimum cell. Its size must not follow by subtraction either: while the suppressed levels of one
attribute, taken together, are a single level or a small cell, the smallest other level goes too.

A plan may ask for a larger minimum than the hospital's own, but not choose what is hidden by it: whatever the
hospital's own minimum (the floor) hides stays hidden under every plan. Otherwise two plans of which one hides
this level and the other that one would together tell both.

The same goes for the bins of a calibration curve: neighbouring tenths are joined until each has enough patients
of both kinds, so that no bin is small and nothing is left over. Levels have no curve, because bin by bin they could be
taken from that of the whole.

A hospital whose patients are all of one class by design has no cell of the other class to protect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from common.messages import CalibrationBin

COUNT_STEP: Final = 5
"""Counts of patients leave in steps of this many, rounded down."""
_FILE_STEP: Final = 10
"""Numbers of files below 1,000 leave in tens, larger ones with two digits."""


@dataclass(frozen=True)
class Cell:
    """Patients of one group; for several classes, those of the rarest."""

    positives: int
    negatives: int


@dataclass(frozen=True)
class Least:
    """The smallest cells that may leave."""

    cell: int
    """The larger of the plan's and the policy's."""
    floor: int
    """The policy's own, whatever the plan says."""

    @classmethod
    def of(cls, asked: int, floor: int) -> Least:
        """A plan's minimum over a policy's; in steps, so that no plan can count by trying one minimum after another."""
        return cls(floor if asked <= floor else -(-asked // COUNT_STEP) * COUNT_STEP, floor)


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
    already: Iterable[str] = (),
) -> frozenset[str]:
    """The levels of one attribute that must not be shown, complementary suppression included.

    Args:
        levels: the patients of each level; one patient may be in several.
        rest: the patients who are in none of these levels: what subtraction would give.
        min_cell: fewest patients of either class.
        one_class: the whole hospital has no patient of one of the classes.
        already: levels that are hidden in any case.
    """
    hidden = {name for name, cell in levels.items() if not releasable(cell, min_cell, one_class=one_class)}
    hidden |= set(already)
    while hidden and len(hidden) < len(levels):
        shown = frozenset(levels) - hidden
        if len(hidden) > 1 and releasable(rest(shown), min_cell, one_class=one_class):
            break
        hidden.add(min(shown, key=lambda name: (levels[name].positives + levels[name].negatives, name)))
    return frozenset(hidden)


def shown_bins(bins: Sequence[CalibrationBin], least: Least) -> tuple[CalibrationBin, ...]:
    """A curve's bins, joined with their neighbours until each is large enough; none where that cannot be.

    How they are joined follows the floor alone: curves cut in two ways could be subtracted from each other.

    Args:
        bins: every bin that is not empty, in order.
        least: fewest patients, positive and negative, of a bin. With a minimum of 1 bins stay as they are.
    """
    joined: list[CalibrationBin] = []
    for one in bins:
        if joined and not _whole(joined[-1], least.floor):
            joined[-1] = _together(joined[-1], one)
        else:
            joined.append(one)
    if len(joined) > 1 and not _whole(joined[-1], least.floor):
        last = joined.pop()
        joined[-1] = _together(joined[-1], last)
    return tuple(joined) if all(_whole(one, least.cell) for one in joined) else ()


def public_count(count: int | None, floor: int) -> int | None:
    """A number of patients as it leaves: in steps of five, rounded down, but not below the policy's minimum."""
    return None if count is None else max(floor, count // COUNT_STEP * COUNT_STEP)


def public_files(count: int | None, least: int) -> int | None:
    """A number of files as it leaves: None below `least`, else to the nearest ten, from 1,000 on with two digits."""
    if count is None or count < least:
        return None
    step: int = max(_FILE_STEP, 10 ** max(0, len(str(count)) - 2))
    return max(step, (count + step // 2) // step * step)


def _whole(one: CalibrationBin, least: int) -> bool:
    if least <= 1:
        return True
    positives = one.observed * one.patients
    return positives >= least and one.patients - positives >= least


def _together(one: CalibrationBin, other: CalibrationBin) -> CalibrationBin:
    patients = one.patients + other.patients
    share = other.patients / patients if patients else 0.0
    return CalibrationBin(
        mean_score=one.mean_score + share * (other.mean_score - one.mean_score),
        observed=one.observed + share * (other.observed - one.observed),
        patients=patients,
    )
