"""A report of very many hospitals: who has nothing to show has no line of its own, and is counted."""

from __future__ import annotations

import pytest

from common.pages.page import NOTHING, Cell
from server.reports.crowds import FEW, gathered, released, spoken


def row(name: str, figure: str, style: str = "") -> tuple[Cell, ...]:
    return (Cell(name), Cell("held back", "muted"), Cell(figure, style))


def test_a_few_hospitals_keep_their_lines_whatever_they_show():
    rows = [row(f"h{n}", "held back", "muted") for n in range(FEW)]
    assert gathered(rows, released) == tuple(rows)


def test_many_that_show_nothing_are_one_line_and_those_that_show_something_stay():
    rows = [
        row(f"h{n}", "0.81" if n % 100 == 0 else "held back", "" if n % 100 == 0 else "muted")
        for n in range(1000)
    ]
    found = gathered(rows, released)
    assert [one[0].text for one in found] == [*(f"h{n}" for n in range(0, 1000, 100)), "990 hospitals"]
    assert found[-1][0].note == "held back"
    assert {cell.text for cell in found[-1][1:]} == {NOTHING}
    assert {len(one) for one in found} == {3}


@pytest.mark.parametrize("count", [0, FEW + 1])
def test_where_all_say_something_nothing_is_added(count):
    rows = [row(f"h{n}", "0.81") for n in range(count)]
    assert gathered(rows, released) == tuple(rows)


def test_items_of_any_kind_are_kept_by_what_they_say():
    assert spoken([1, 0, 2], bool, few=2) == [1, 2]
    assert spoken([1, 0], bool, few=2) == [1, 0]
