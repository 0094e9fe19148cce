"""What a report of very many hospitals leaves out line by line: hospitals that have nothing to show, told together instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from common.pages.page import NOTHING, Cell

FEW: Final = 40
"""Hospitals up to which each has a line of its own, whatever it shows."""
Row = tuple[Cell, ...]
T = TypeVar("T")


def spoken(items: Sequence[T], says: Callable[[T], bool], few: int = FEW) -> list[T]:
    """All of a few; of many those that say something.

    Args:
        items: one for each hospital or group.
        says: whether one says something.
        few: how many are a few.
    """
    return [one for one in items if says(one)] if len(items) > few else list(items)


def gathered(rows: Sequence[Row], says: Callable[[Row], bool], words: str = "held back") -> tuple[Row, ...]:
    """Rows of a table, of which many that say nothing become one at its end.

    Args:
        rows: one for each hospital, all of one length; the first cell names it.
        says: whether a row says something.
        words: what the others say together.
    """
    kept = spoken(rows, says)
    gone = len(rows) - len(kept)
    if not gone:
        return tuple(kept)
    head = Cell(f"{gone:,} hospitals" if gone > 1 else "1 hospital", note=words)
    return (*kept, (head, *(Cell(NOTHING, "muted") for _ in rows[0][1:])))


def released(row: Row) -> bool:
    """Whether some cell behind the first holds a figure, not why there is none."""
    return any(cell.style != "muted" for cell in row[1:])
