"""Which counts of an analysis may be told, and how exact: of a hospital's own, and of a sum when it is written down.

Laws, in order; pure. A row is one label of one table.

1. A label with fewer patients than the minimum cell is hidden in every table, as if it were not there.
2. In a row, cells below the minimum are hidden, also empty ones where the bin has patients of another label. Where any is
   hidden, bins with nobody at all are hidden with them.
3. While what is hidden in a row is one cell, or holds fewer patients than the minimum together, the smallest shown one goes too.
4. What is left is coarse: fives, rounded down, but not below the floor.

What is hidden of a row are always its smallest cells, so a larger minimum only ever hides more, and no plan can choose what it hides.

The only margin that is told is the number of a label's patients, and that is all that rows of different tables share; those of one
table share which bins are empty. Whatever is hidden in a row could therefore all stand in any one of its hidden cells whose bin is
not empty, and by law 3 that is a cell large enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from common.analytics import Counts, Schema
from common.messages_analytics import CountTable

STEP: Final = 5
"""Counts of patients are told in steps of this many, rounded down."""
Hidden = frozenset[tuple[str, int, int]]
"""Axis, label, bin."""


def exact_tables(schema: Schema, counts: Counts) -> tuple[CountTable, ...]:
    """Counts as a message has them, nothing held back."""
    return tuple(
        CountTable(name, tuple(tuple(int(cell) for cell in row) for row in table))
        for name, table in schema.tables(counts).items()
    )


def coarse(tables: Iterable[CountTable], cell: int, floor: int) -> tuple[CountTable, ...]:
    """Tables with small cells held back and the others in fives.

    Args:
        tables: over the same patients, each of whom stands in one cell of every table.
        cell: the smallest that may be told.
        floor: the same, whatever a plan asks.
    """
    found = {one.axis: _array(one) for one in tables}
    gone = hidden(found, max(cell, floor))
    return tuple(
        CountTable(
            axis,
            tuple(
                tuple(
                    None if (axis, label, place) in gone else _told(int(count), floor)
                    for place, count in enumerate(row)
                )
                for label, row in enumerate(table)
            ),
        )
        for axis, table in found.items()
    )


def hidden(tables: Mapping[str, Counts], minimum: int) -> Hidden:
    """Which cells are held back.

    Args:
        tables: [labels, bins] by axis.
        minimum: the smallest cell that may be told; with 1 no cell of a patient is hidden.
    """
    found: set[tuple[str, int, int]] = set()
    for axis, table in tables.items():
        inhabited = table.sum(axis=0) > 0
        for label, row in enumerate(table):
            found |= {(axis, label, place) for place in _hidden_in(row, inhabited, minimum)}
    return frozenset(found)


def _hidden_in(row: Counts, inhabited: np.ndarray, minimum: int) -> set[int]:
    """Of one label and table."""
    places = range(len(row))
    if row.sum() < minimum:
        return set(places)
    gone = {place for place in places if row[place] < minimum and inhabited[place]}
    if not gone:
        return gone
    gone |= {place for place in places if not inhabited[place]}
    while len(gone) < len(row) and (
        sum(bool(inhabited[place]) for place in gone) < 2 or sum(int(row[place]) for place in gone) < minimum
    ):
        shown = [place for place in places if place not in gone]
        gone.add(min(shown, key=lambda place: (int(row[place]), place)))
    return gone


def _told(cell: int, floor: int) -> int:
    """An empty cell of a bin with nobody at all is told as such: it is about no patient."""
    return 0 if cell == 0 else max(floor, cell // STEP * STEP)


def _array(one: CountTable) -> Counts:
    return np.array([[cell or 0 for cell in row] for row in one.cells], dtype=np.int64)
