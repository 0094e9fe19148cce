"""Gaps: found when planted, silent when not, never ranked on too little, and the same from the same seed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from common.errors import DataError
from common.statistics import Sample, Settings, families_of, gaps
from common.statistics.cells import cells_of
from common.statistics.permutation import shuffled

QUICK = Settings(metrics=("auroc",), permutations=199, resamples=0)
SINGLE = (("site",), ("manufacturer",), ("sex",))


def cohort(seed: int = 0, patients: int = 500, *, gap: float = 2.0) -> Sample:
    """Two images a patient; scores of Boreal tell less by `gap` standard deviations of 2.2."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), 2)
    positive = rng.random(patients) < 0.3
    maker = rng.choice(3, patients, p=[0.5, 0.3, 0.2])
    eta = (2.2 - gap * (maker == 1)) * positive + rng.normal(size=patients)
    scores = 1 / (1 + np.exp(1 - eta[owner] - 0.3 * rng.normal(size=len(owner))))
    attributes = {
        "site": np.array(["north", "south"])[rng.integers(0, 2, patients)][owner],
        "manufacturer": np.array(["Aster", "Boreal", "Corvus"])[maker][owner],
        "sex": np.array(["F", "M"])[rng.integers(0, 2, patients)][owner],
    }
    return Sample(scores, positive[owner], owner, attributes, 0.5)


def judge(sample, families=SINGLE, settings=QUICK, seed=1):
    return gaps(sample, families, np.random.default_rng(seed), settings)


def group(found, level):
    return next(g for g in found.groups if g.level == level)


def test_a_planted_gap_is_found_named_and_worse():
    found = judge(cohort(), settings=replace(QUICK, permutations=None))
    first = found.found()[0]
    assert (first.level, first.metric, first.worse) == ("Boreal", "auroc", True)
    assert first.gap.value < first.together.low
    assert found.worst("auroc").level == "Boreal"


def test_nobody_else_is_accused():
    """Over 20 cohorts: site and sex, which are innocent, in no more than chance explains (at most 4 in 1,000 times)."""
    accused = [{g.family for g in judge(cohort(seed), seed=seed).found()} for seed in range(20)]
    assert all(("manufacturer",) in families for families in accused)
    assert sum(families != {("manufacturer",)} for families in accused) <= 4


def test_the_same_generator_gives_the_same_findings():
    assert repr(judge(cohort(gap=0.5))) == repr(judge(cohort(gap=0.5)))


def test_a_gap_is_beyond_its_band_just_when_its_p_value_says_so():
    """The band of one gap alone at 5%, and that of all together at the level of Holm."""
    for seed in range(12):
        for one in judge(cohort(seed, 300, gap=0.8), seed=seed).gaps:
            outside = not one.alone.low <= one.gap.value <= one.alone.high
            assert outside == (one.p <= 0.05) or abs(one.p - 0.05) < 0.006
            if not one.alone.low <= one.gap.value <= one.alone.high:
                assert one.together.low <= one.alone.low


def test_two_groups_are_one_test():
    found = judge(cohort(), (("sex",),))
    assert found.tests == 1
    first, second = found.gaps
    assert first.gap.value == pytest.approx(-second.gap.value)
    assert (first.p, second.mirrored) == (second.p, True)
    assert not found.spreads


def test_a_group_with_nine_positives_is_shown_and_not_ranked():
    sample = cohort()
    few = np.zeros(500, dtype=bool)
    few[np.flatnonzero(sample.truth[::2])[:9]] = True
    few[np.flatnonzero(~sample.truth[::2])[:40]] = True
    attributes = {"ward": np.array(["rest", "small"])[few.astype(int)][np.asarray(sample.patients)]}
    found = judge(Sample(sample.scores, sample.labels, sample.patients, attributes), (("ward",),))
    small = group(found, "small")
    assert not small.ranked
    assert small.why == "fewer than 10 positives"
    assert "auroc" in small.figures
    assert small.positives is None
    assert not found.gaps


def test_a_small_group_is_not_shown_and_cannot_be_worked_out():
    """Ten patients of one site: held back, and with them the counts of the smallest other."""
    sample = cohort()
    site = np.where(np.asarray(sample.patients) < 10, "tiny", sample.attributes["site"])
    found = judge(Sample(sample.scores, sample.labels, sample.patients, {"site": site}), (("site",),))
    tiny = group(found, "tiny")
    assert tiny.figures == {}
    assert tiny.patients is None
    assert sorted(g.patients is None for g in found.groups) == [False, True, True]


def test_a_scanner_that_is_its_site_is_not_blamed():
    """One manufacturer per site: its gap cannot be told from the site's, and is not judged."""
    sample = cohort()
    alone = np.where(np.asarray(sample.attributes["site"]) == "north", "Aster", "Boreal")
    found = judge(replace(sample, attributes={**sample.attributes, "manufacturer": alone}))
    assert group(found, "Boreal").why == "cannot be told from its site"
    assert ("site",) in {g.family for g in found.gaps}
    assert ("manufacturer",) not in {g.family for g in found.gaps}


def test_chance_is_centred_where_the_sites_put_it():
    """A scanner mostly at the weak site is expected to be weak; within sites it is not, and nothing is found."""
    rng = np.random.default_rng(3)
    positive = rng.random(900) < 0.35
    south = rng.random(900) < 0.5
    scanner = np.where(rng.random(900) < np.where(south, 0.8, 0.2), "Boreal", "Aster")
    scores = 1 / (1 + np.exp(-np.where(south, 0.3, 3.0) * positive - rng.normal(size=900)))
    attributes = {"site": np.where(south, "south", "north"), "manufacturer": scanner}
    sample = Sample(scores, positive, np.arange(900), attributes)
    held, free = (
        judge(sample, (("manufacturer",),), replace(QUICK, fixed=fixed)).gaps[0] for fixed in (("site",), ())
    )
    assert free.p <= 0.01
    assert held.p > 0.05
    assert abs(held.alone.centre) > 0.05


def test_a_combination_of_the_same_images_is_not_judged_twice():
    """A model made by one manufacturer only is that model, whatever stands before its name."""
    sample = cohort()
    model = np.char.add(np.asarray(sample.attributes["manufacturer"]), "-1")
    one = replace(sample, attributes={"manufacturer": sample.attributes["manufacturer"], "model": model})
    found = judge(one, families_of(("manufacturer", "model")))
    assert {g.family for g in found.gaps} == {("manufacturer",)}
    assert group(found, "Boreal-1").why == "the same images as manufacturer Boreal"


def test_levels_move_between_patients_of_one_stratum_and_never_between_images():
    """Every permutation keeps each stratum's levels, and a patient's images together."""
    sample = cohort()
    cells = cells_of(sample, ("manufacturer",), ("site",))
    assert cells.count == 500
    moved = shuffled(cells, np.random.default_rng(0), 50)
    for stratum in np.unique(cells.stratum):
        inside = cells.stratum == stratum
        assert (np.sort(moved[inside], axis=0) == np.sort(cells.level[inside])[:, None]).all()
    assert (moved != cells.level[:, None]).any()
    site = np.asarray(sample.attributes["site"])[::2]
    for alike in (sample.truth[::2], ~sample.truth[::2], site == "north"):
        assert (np.sort(moved[alike], axis=0) == np.sort(cells.level[alike])[:, None]).all()


def test_every_arrangement_is_as_likely():
    """Six patients, two of them in the group: all fifteen ways are drawn equally often."""
    sample = Sample(np.linspace(0.1, 0.9, 6), np.ones(6), np.arange(6), {"g": ["a", "a", "b", "b", "b", "b"]})
    moved = shuffled(cells_of(sample, ("g",)), np.random.default_rng(0), 15_000)
    ways = np.unique(moved, axis=1, return_counts=True)[1]
    assert len(ways) == 15
    assert (
        np.square(ways - 1000).sum() / 1000 < 36.1
    )  # chi-square with 14 degrees of freedom, one in a thousand


def test_a_patient_with_both_views_is_a_stratum():
    """Their views change places with each other, not with another patient's."""
    views = np.array(["AP", "PA", "AP", "PA", "PA", "AP"])
    sample = Sample(np.linspace(0.1, 0.9, 6), np.ones(6), [0, 0, 1, 2, 3, 3], {"view": views})
    cells = cells_of(sample, ("view",))
    moved = shuffled(cells, np.random.default_rng(0), 200)
    for patient in (0, 3):
        assert (np.sort(moved[cells.patient == patient], axis=0) == [[0], [1]]).all()


def test_equalised_odds_are_the_larger_of_two_spreads():
    sample = cohort()
    settings = replace(QUICK, metrics=("sensitivity", "specificity"))
    found = judge(sample, (("manufacturer",),), settings)
    rates = {
        m: [g.figures[m].value for g in found.groups if m in g.figures]
        for m in ("sensitivity", "specificity")
    }
    widest = max(max(r) - min(r) for r in rates.values())
    odds = next(s for s in found.spreads if s.metric == "equalised_odds")
    assert odds.value == pytest.approx(widest)
    assert group(found, "Aster").figures["fnr"].value == pytest.approx(1 - rates["sensitivity"][0])


def test_every_figure_has_an_interval_and_a_band():
    settings = Settings(permutations=99, resamples=100)
    found = judge(cohort(patients=300, gap=0.5), (("manufacturer",),), settings)
    assert {g.metric for g in found.gaps} == set(settings.metrics)
    for one in found.gaps:
        assert one.gap.low <= one.gap.value <= one.gap.high
        assert one.together.low <= one.alone.low < one.alone.high <= one.together.high
    for figure in group(found, "Aster").figures.values():
        assert figure.low <= figure.value <= figure.high


def test_delong_and_bootstrap_agree_on_the_area():
    settings = replace(QUICK, resamples=400)
    one, two = (
        judge(cohort(), (("sex",),), replace(settings, area=area)) for area in ("delong", "bootstrap")
    )
    first, second = (group(found, "F").figures["auroc"] for found in (one, two))
    assert first.value == pytest.approx(second.value, abs=1e-6)
    assert first.high - first.low == pytest.approx(second.high - second.low, rel=0.2)


def test_more_permutations_are_drawn_only_where_they_matter():
    """The surest gap is told from chance by Holm over many tests, which 999 permutations could not do."""
    families = families_of(("site", "manufacturer", "sex"))
    found = judge(cohort(), families, replace(QUICK, permutations=None, metrics=("auroc", "brier")))
    assert found.permutations > 999
    assert min(g.p for g in found.gaps) < 1 / 1000
    assert all((g.p * 1000) == pytest.approx(round(g.p * 1000)) for g in found.gaps if g.p > 0.02)


@pytest.mark.parametrize("scores", [[0.1, 0.2], [0.1, 0.2, math.nan], [0.1, 0.2, 1.5]])
def test_scores_that_cannot_be_judged_are_refused(scores):
    with pytest.raises(DataError):
        Sample(np.array(scores), [0, 1, 0], [1, 2, 3], {"g": ["a", "b", "a"]})


def test_a_group_by_what_nobody_recorded_is_refused():
    with pytest.raises(DataError, match="ward"):
        judge(cohort(), (("ward",),))


def test_a_group_at_a_weak_site_that_does_better_than_the_site_explains_is_not_called_worse():
    """Nine tenths of machine b stand at a weak site; within either site it is the better machine, and yet its gap is below zero."""
    rng = np.random.default_rng(3)
    count = 3000
    truth = np.arange(count) % 2 == 0
    weak = rng.random(count) < 0.5
    machine = np.where(rng.random(count) < np.where(weak, 0.9, 0.1), "b", "a")
    raw = rng.normal(size=count) + truth * (np.where(weak, 0.2, 2.4) + 0.6 * (machine == "b"))
    sample = Sample(
        1 / (1 + np.exp(-raw)), truth, np.arange(count),
        {"site": np.where(weak, "weak", "strong"), "machine": machine},
    )  # fmt: skip
    found = gaps(sample, (("machine",),), rng, Settings(metrics=("auroc",), permutations=999))
    by_level = {g.level: g for g in found.gaps}
    assert by_level["b"].gap.value < -0.02
    assert by_level["b"].found()
    assert by_level["b"].gap.value > by_level["b"].alone.high
    assert not by_level["b"].worse
    assert by_level["a"].worse
