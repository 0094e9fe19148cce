"""An adversarial server asks everything it may; linear algebra over all answers finds no small cell.

The hospital here is a table: so many positive and negative patients of each level of each attribute. What leaves is
what `client.evaluation` measures and `client.coarsen` lets out. The attacker knows the rules, and solves for each
hidden cell the largest and smallest number of patients that agree with every answer.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from client.coarsen import Rules, suppress
from client.evaluation import Scores, measure
from client.suppression import COUNT_STEP, Cell, Least, suppressed_levels
from common.messages import IntakeSummary, SiteMetrics
from tests.client.made import made_plan

FLOOR = 11
LEVELS = {"sex": ("F", "M", "O"), "manufacturer": ("Aster", "Borealis", "Corona", "Draco")}
PLAN = made_plan(evaluation={"groups": list(LEVELS), "min_cell": 1, "bootstrap": 100})
DIGEST = "sha256:" + "0" * 64
CLASSES = ("positives", "negatives")


def hospital(seed: int, shares: list[list[int]], positives: int, negatives: int) -> Scores:
    """Patients of one image each; every attribute is a partition of them, drawn in these shares."""
    rng = np.random.default_rng(seed)
    count = positives + negatives
    labels = (np.arange(count) < positives).astype(np.float32)[:, None]
    attributes = {
        name: rng.choice(levels, count, p=np.array(weights[: len(levels)]) / sum(weights[: len(levels)]))
        for (name, levels), weights in zip(LEVELS.items(), shares, strict=True)
    }
    scores = np.clip(0.5 * labels + rng.normal(0.25, 0.2, (count, 1)), 0.001, 0.999).astype(np.float64)
    return Scores(scores, labels, np.arange(count), attributes, [f"p{n}" for n in range(count)])


def answers(found: Scores, minima: list[int]) -> list[SiteMetrics]:
    """What leaves under plans that ask for these minima and for two models each."""
    told = []
    for asked in minima:
        least = Least.of(asked, FLOOR)
        models = tuple(
            measure(one, PLAN, 0.5, least, name)
            for name, one in (("federated", found), ("personalised", shifted(found)))
        )
        told.append(suppress(SiteMetrics("a", "r", 1, DIGEST, models=models), Rules(least)))
    return told


def shifted(found: Scores) -> Scores:
    """Another model on the same patients."""
    return Scores(found.scores**1.5, found.labels, found.patient_of, found.attributes, found.pseudonyms)


def known(told: list[SiteMetrics]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(group, level, class) to the range that a released count leaves open."""
    found = {}
    for group in itertools.chain.from_iterable(m.groups for one in told for m in one.models):
        for kind in CLASSES:
            count = getattr(group, kind)
            if count is not None:
                top = count // COUNT_STEP * COUNT_STEP + COUNT_STEP - 1
                found[group.group, group.level, kind] = (count, top)
    return found


def largest(told: list[SiteMetrics], kind: str, target: tuple[str, str]) -> float:
    """The most patients of a class that the target cell could have, given every answer."""
    cells = [(name, level) for name, levels in LEVELS.items() for level in levels]
    facts = known(told)
    bounds = [facts.get((*cell, kind), (0, None)) for cell in cells]
    rows, limits = [], []
    low, high = facts.get(("all", "all", kind), (0, 10**6))
    for name in LEVELS:
        row = [1.0 if cell[0] == name else 0.0 for cell in cells]
        rows += [row, [-value for value in row]]
        limits += [high, -low]
    first, second = ([1.0 if cell[0] == name else 0.0 for cell in cells] for name in LEVELS)
    same = [[a - b for a, b in zip(first, second, strict=True)]]
    cost = [-1.0 if cell == target else 0.0 for cell in cells]
    solved = linprog(cost, A_ub=rows, b_ub=limits, A_eq=same, b_eq=[0.0], bounds=bounds)
    assert solved.status in (0, 3), "the answers contradict the truth"
    return float("inf") if solved.status == 3 else -solved.fun


shares = st.lists(st.sampled_from((1, 2, 5, 30, 100)), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    weights=st.tuples(shares, shares).map(list),
    positives=st.integers(0, 120),
    negatives=st.integers(0, 250),
    minima=st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
def test_no_small_cell_follows_from_all_answers_together(seed, weights, positives, negatives, minima):
    if positives + negatives == 0:
        return
    found = hospital(seed, weights, positives, negatives)
    told = answers(found, minima)
    one_class = 0 in (positives, negatives)
    for name, levels in LEVELS.items():
        for level in levels:
            part = found.take(found.attributes[name] == level)
            for kind in CLASSES:
                count = getattr(part.cell, kind)
                if 0 < count < FLOOR or (count == 0 and not one_class and part.labels.size):
                    assert largest(told, kind, (name, level)) >= FLOOR, (name, level, kind, count)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    positives=st.integers(11, 120),
    negatives=st.integers(11, 250),
    minima=st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
def test_no_bin_of_any_curve_holds_few_of_either_class_and_nothing_is_left_over(
    seed, positives, negatives, minima
):
    found = hospital(seed, [[1] * 4, [1] * 4], positives, negatives)
    for one in answers(found, minima):
        for model in one.models:
            whole = model.groups[0]
            for each in whole.calibration:
                most = each.patients + COUNT_STEP
                assert min(each.observed, 1 - each.observed) * most >= FLOOR
            if whole.calibration:
                shown = sum(each.patients for each in whole.calibration)
                most = whole.positives + whole.negatives + 2 * COUNT_STEP
                assert shown - COUNT_STEP * len(whole.calibration) <= most


def test_two_plans_that_hide_different_levels_do_not_tell_the_third():
    """With a larger minimum another level would be hidden beside the small one, and both could be told apart."""
    levels = {"A": (3, 40), "C": (30, 30), "E": (12, 80), "F": (50, 50)}
    found = {}
    cells = {name: Cell(*sizes) for name, sizes in levels.items()}

    def rest(shown):
        left = [cells[name] for name in cells if name not in shown]
        return Cell(sum(c.positives for c in left), sum(c.negatives for c in left))

    for asked in (11, 15):
        least = Least.of(asked, 11)
        always = suppressed_levels(cells, rest, least.floor)
        found[asked] = suppressed_levels(cells, rest, least.cell, already=always)
    assert found[11] <= found[15]
    assert suppressed_levels(cells, rest, 15) == {"A", "E"}
    assert found[11] == {"A", "C"}


@settings(max_examples=60, deadline=None)
@given(
    accepted=st.integers(0, 3000),
    refused=st.dictionaries(
        st.sampled_from(("quality-blank", "head-ct", "burned-in", "timeout")), st.integers(0, 200), max_size=4
    ),
)
def test_no_small_number_of_refused_files_follows_from_the_totals(accepted, refused):
    """received = accepted + refused, so a hidden reason could be what is left over."""
    received = accepted + sum(refused.values())
    intake = IntakeSummary(received, accepted, refused, 50)
    told = suppress(SiteMetrics("a", "r", 0, DIGEST, intake=intake), Rules(Least(FLOOR, FLOOR))).intake
    for code, count in refused.items():
        if 0 < count < FLOOR:
            assert told.refused[code] is None
            assert width(told, code) >= 4, (received, accepted, refused)


def width(told: IntakeSummary, target: str) -> float:
    """How far the smallest and the largest number of files of a hidden reason lie apart."""
    names = ["received", "accepted", *told.refused]
    values = [told.received, told.accepted, *told.refused.values()]
    bounds = [around(value) for value in values]
    same = [[1.0, *[-1.0] * (len(names) - 1)]]
    solve = partial(linprog, A_eq=same, b_eq=[0.0], bounds=bounds)
    cost = [1.0 if name == target else 0.0 for name in names]
    least, most = solve(cost), solve([-value for value in cost])
    assert least.status == most.status == 0, "the answers contradict the truth"
    return float(-most.fun - least.fun)


def around(value: int | None) -> tuple[float, float]:
    """What a released number of files leaves open."""
    if value is None:
        return 0, FLOOR - 1
    half = max(10, 10 ** (len(str(value)) - 2)) / 2
    return max(FLOOR, value - half), value + half


@pytest.mark.parametrize("asked", range(1, 61))
def test_a_larger_minimum_only_ever_hides_more(asked):
    """The server can only tighten."""
    found = hospital(3, [[5, 30, 100, 1], [30, 2, 100, 5]], 60, 120)
    few, many = (known(answers(found, [least])) for least in (asked, 11))
    assert set(few) <= set(many)
    assert all(few[cell] == many[cell] for cell in few)


def test_the_attacker_of_these_tests_finds_a_cell_that_is_not_protected():
    """Without the complement the same algebra tells it; the tests above would otherwise prove nothing."""
    found = hospital(1, [[100, 30, 5, 1], [1, 1, 1, 1]], 100, 200)
    models = (measure(found, PLAN, 0.5, 1),)
    told = [SiteMetrics("a", "r", 1, DIGEST, models=models)]
    part = found.take(found.attributes["sex"] == "O")
    assert 0 < part.cell.positives < FLOOR
    assert largest(told, "positives", ("sex", "O")) < FLOOR
