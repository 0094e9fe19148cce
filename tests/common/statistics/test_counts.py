"""Counts that are held back stay unknown when the totals are known."""

from __future__ import annotations

from common.statistics.counts import Counts, hidden
from common.statistics.sample import BETWEEN


def sized(*sizes):
    return [Counts(p + n, p, n) for p, n in sizes]


def test_nothing_small_hides_nothing():
    assert hidden(("a", "b"), sized((20, 30), (11, 40)), 11) == frozenset()


def test_with_one_small_count_the_smallest_other_goes():
    assert hidden(("a", "b", "c"), sized((5, 30), (40, 60), (20, 30)), 11) == {"a", "c"}


def test_two_small_ones_that_are_enough_together_need_no_third():
    assert hidden(("a", "b", "c"), sized((6, 20), (7, 20), (20, 30)), 11) == {"a", "b"}
    assert hidden(("a", "b", "c"), sized((3, 20), (4, 20), (20, 30)), 11) == {"a", "b", "c"}


def test_a_group_without_positives_is_not_small_for_that():
    assert hidden(("a", "b"), sized((0, 30), (20, 40)), 11) == frozenset()


def test_in_a_table_of_pairs_no_row_or_column_misses_one_cell():
    names = tuple(f"{a}{BETWEEN}{b}" for a in "xyz" for b in "uvw")
    sizes = sized((5, 30), (20, 30), (30, 40), (25, 30), (20, 25), (40, 40), (50, 50), (60, 60), (70, 70))
    found = hidden(names, sizes, 11)
    for place in (0, 1):
        for value in {name.split(BETWEEN)[place] for name in names}:
            missing = [name for name in found if name.split(BETWEEN)[place] == value]
            assert len(missing) != 1
