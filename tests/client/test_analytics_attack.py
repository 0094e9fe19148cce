"""A server that knows the rules solves for each hidden cell of an analysis; none is found to be small.

For every hidden cell the attacker finds the largest number of patients that agrees with everything told: rounding, the rows'
common totals, and which bins are empty.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from common.cells import STEP, coarse
from common.messages import CountTable

FLOOR = 11
BINS = {"patients": 1, "sex": 4, "manufacturer": 5, "age": 8}
LABELS = 3


def hospital(seed: int, patients: int, skew: float) -> dict[str, np.ndarray]:
    """Patients in one cell of each table; `skew` makes some bins and labels rare."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(LABELS, skew))
    labels = rng.choice(LABELS, patients, p=share)
    found = {}
    for axis, bins in BINS.items():
        table = np.zeros((LABELS, bins), dtype=np.int64)
        for label in range(LABELS):
            of = rng.choice(bins, int((labels == label).sum()), p=rng.dirichlet(np.full(bins, skew)))
            np.add.at(table, (label, of), 1)
        found[axis] = table
    return found


def told(tables: dict[str, np.ndarray], *asked: int) -> list[tuple[CountTable, ...]]:
    """What leaves under plans that ask for these minima."""
    exact = [CountTable(axis, tuple(map(tuple, table.tolist()))) for axis, table in tables.items()]
    return [coarse(exact, max(one, FLOOR), FLOOR) for one in asked]


def bounds(answers) -> dict[tuple[str, int, int], tuple[float, float | None]]:
    """What each cell may be, from every answer: a released one within its five, an empty bin empty for everybody."""
    found = {
        (axis, label, place): (0.0, None)
        for axis, n in BINS.items()
        for label in range(LABELS)
        for place in range(n)
    }
    for tables in answers:
        for table in tables:
            for label, row in enumerate(table.cells):
                for place, cell in enumerate(row):
                    if cell == 0:
                        for every in range(LABELS):
                            found[table.axis, every, place] = (0.0, 0.0)
                    elif cell is not None:
                        found[table.axis, label, place] = (cell, cell // STEP * STEP + STEP - 1)
    return found


def largest(answers, target) -> float:
    """The most patients that the target could have."""
    facts = bounds(answers)
    cells = list(facts)
    first, *others = BINS
    same = [
        [(cell[0] == first) - (cell[0] == other) if cell[1] == label else 0 for cell in cells]
        for label in range(LABELS)
        for other in others
    ]
    cost = [-1.0 if cell == target else 0.0 for cell in cells]
    solved = linprog(cost, A_eq=same, b_eq=[0.0] * len(same), bounds=[facts[cell] for cell in cells])
    assert solved.status in (0, 3), "the answers contradict the truth"
    return float("inf") if solved.status == 3 else -solved.fun


def leaks(tables, answers) -> list[tuple]:
    """Small cells that the attacker knows to be small; an empty bin is about nobody."""
    return [
        ((axis, label, place), int(table[label, place]))
        for axis, table in tables.items()
        for label in range(LABELS)
        for place in range(table.shape[1])
        if table[label, place] < FLOOR
        and table[:, place].any()
        and largest(answers, (axis, label, place)) < FLOOR
    ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    patients=st.integers(0, 400),
    skew=st.sampled_from((0.2, 0.5, 1.0, 5.0)),
    minima=st.lists(st.integers(1, 60), min_size=1, max_size=3),
)
def test_no_small_cell_follows_from_all_tables_and_all_plans(seed, patients, skew, minima):
    tables = hospital(seed, patients, skew)
    assert not leaks(tables, told(tables, *minima))


def test_the_attacker_finds_what_is_not_protected():
    """Without the complement the same algebra tells it; the test above would otherwise prove nothing."""
    tables = {axis: np.zeros((LABELS, bins), dtype=np.int64) for axis, bins in BINS.items()}
    tables["patients"][0, 0] = tables["sex"][0, 0] = tables["age"][0, 3] = 104
    tables["manufacturer"][0, :2] = 101, 3
    naive = tuple(
        CountTable(
            axis,
            tuple(
                tuple(None if 0 < cell < FLOOR else cell // STEP * STEP for cell in row)
                for row in table.tolist()
            ),
        )
        for axis, table in tables.items()
    )
    assert (("manufacturer", 0, 1), 3) in leaks(tables, [naive])
    assert not leaks(tables, told(tables, 11))


def test_an_exact_sum_beside_rounded_cells_of_its_parts_would_tell_a_small_cell():
    """Why a hospital is in a sum or on its own, and never both in a year."""
    small, others = 3, (33, 27)
    total = small + sum(others)
    rest = total - sum(one // STEP * STEP for one in others)
    assert rest < FLOOR
    assert small <= rest <= small + len(others) * (STEP - 1)


@pytest.mark.parametrize("patients", [40, 150, 400])
@pytest.mark.parametrize("seed", range(8))
def test_a_larger_minimum_only_ever_hides_more(patients, seed):
    tables = hospital(seed, patients, 1.0)
    few, many = told(tables, 11 + 7 * (seed + 1), 11)
    for strict, loose in zip(few, many, strict=True):
        for one, other in zip(strict.cells, loose.cells, strict=True):
            assert all(a is None or a == b for a, b in zip(one, other, strict=True))


def test_most_of_a_large_hospital_is_still_told():
    """A rule that hides everything would pass all tests above."""
    shown = [cell for table in told(hospital(3, 4000, 5.0), 11)[0] for row in table.cells for cell in row]
    assert sum(cell is not None for cell in shown) > 0.8 * len(shown)
