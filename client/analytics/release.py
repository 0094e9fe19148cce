"""What of a hospital's own cells may leave, and how exact; the same rules for what is written down of a sum.

Laws, in order; pure. A row is one label of one table.

1. A label with fewer patients than the minimum cell is hidden in every table, as if it were not there.
2. In a row, cells below the minimum are hidden, also empty ones where the bin has patients of another label. Where any is
   hidden, bins with nobody at all are hidden with them.
3. While what is hidden in a row is one cell, or holds fewer patients than the minimum together, the smallest shown one goes too.
4. What the floor hides stays hidden under every plan (`client.suppression`). What is left is coarse: fives, rounded down.

No margin is ever told, so the only thing that rows of different tables share is the number of a label's patients. Whatever is
hidden in a row could therefore all stand in any one of its hidden cells, and by law 3 that is a cell large enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from client.suppression import Least, public_count
from common.analytics import GROUPED, Counts, Schema
from common.messages import CountTable, Tally

Hidden = frozenset[tuple[str, int, int]]
"""Axis, label, bin."""


def exact_tables(schema: Schema, counts: Counts) -> tuple[CountTable, ...]:
    """Counts as a message has them, nothing held back."""
    return tuple(
        CountTable(name, tuple(tuple(int(cell) for cell in row) for row in table))
        for name, table in schema.tables(counts).items()
    )


def released(tally: Tally, least: Least, groups: Collection[str], *, shown: bool) -> Tally:
    """The same record with nothing in it that may not leave.

    Args:
        tally: exact.
        least: of plan and policy.
        groups: of the policy; an axis of `GROUPED` that is not among them stays.
        shown: whether the policy shows own cells at all.
    """
    kept = [one for one in tally.tables if one.axis not in GROUPED or one.axis in groups]
    return replace(tally, tables=coarse(kept, least) if shown else ())


def coarse(tables: Iterable[CountTable], least: Least) -> tuple[CountTable, ...]:
    """Tables with small cells held back and the others in fives.

    Args:
        tables: over the same patients, each of whom stands in one cell of every table.
        least: the smallest cells that may be told.
    """
    found = {one.axis: _array(one) for one in tables}
    gone: Hidden = frozenset()
    for minimum in (least.floor, least.cell):
        gone = hidden(found, minimum, gone)
    return tuple(
        CountTable(
            axis,
            tuple(
                tuple(
                    None if (axis, label, place) in gone else _told(int(cell), least.floor)
                    for place, cell in enumerate(row)
                )
                for label, row in enumerate(table)
            ),
        )
        for axis, table in found.items()
    )


def hidden(tables: Mapping[str, Counts], minimum: int, already: Hidden = frozenset()) -> Hidden:
    """Which cells are held back.

    Args:
        tables: [labels, bins] by axis.
        minimum: the smallest cell that may be told; with 1 only what is `already` hidden is.
        already: cells that are hidden in any case.
    """
    found: set[tuple[str, int, int]] = set()
    for axis, table in tables.items():
        inhabited = table.sum(axis=0) > 0
        for label, row in enumerate(table):
            before = {place for name, of, place in already if (name, of) == (axis, label)}
            found |= {(axis, label, place) for place in _hidden_in(row, inhabited, minimum, before)}
    return frozenset(found)


def _hidden_in(row: Counts, inhabited: np.ndarray, minimum: int, before: set[int]) -> set[int]:
    """Of one label and table."""
    places = range(len(row))
    if row.sum() < minimum:
        return set(places)
    gone = before | {place for place in places if row[place] < minimum and inhabited[place]}
    if not gone:
        return gone
    gone |= {place for place in places if not inhabited[place]}
    while len(gone) < len(row) and (len(gone) < 2 or sum(int(row[place]) for place in gone) < minimum):
        shown = [place for place in places if place not in gone]
        gone.add(min(shown, key=lambda place: (int(row[place]), place)))
    return gone


def _told(cell: int, floor: int) -> int:
    """An empty cell of a bin with nobody at all is told as such: it is about no patient."""
    return 0 if cell == 0 else public_count(cell, floor) or 0


def _array(one: CountTable) -> Counts:
    return np.array([[cell or 0 for cell in row] for row in one.cells], dtype=np.int64)
