"""The score given the truth: both a link in training and a score that follows it are needed for an alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from simulations.probes.contract import Model, Seen
from simulations.probes.dependence import Taught, dependence
from tests.simulations.probes.made import MACHINES, seen

SEEDS = 150
NOBODY = Model(lambda images: images[:, 6:10, 6:10].mean(axis=(1, 2)).astype(np.float64))


def taught(rng: np.random.Generator, link: float, patients: int = 400) -> Taught:
    """Training patients, of whom those on the second machine are likelier to be ill."""
    makers = rng.choice(MACHINES, patients)
    truth = rng.random(patients) < 0.4 + link * np.where(makers == MACHINES[1], 1, -1) / 2
    others = {"site": rng.choice(["site-0", "site-1"], patients), "sex": rng.choice(["F", "M"], patients)}
    return Taught(truth, np.arange(patients), {"manufacturer": makers, **others})


def brighter(given: Seen, by: float) -> Seen:
    """Images of the second machine are brighter in the middle, where the model looks."""
    images = given.images.copy()
    images[given.attributes["manufacturer"] == MACHINES[1], 6:10, 6:10] += by
    return replace(given, images=images)


def of_maker(link: float, by: float, seed: int):
    rng = np.random.default_rng(seed)
    (probe,) = dependence(
        NOBODY, brighter(seen(rng), by), taught(rng, link), rng, ("manufacturer",), draws=199
    )
    return probe


def test_a_machine_that_told_and_that_the_score_follows_is_found():
    probe = of_maker(0.6, 0.6, seed=1)
    assert probe.found(0.05)
    assert probe.figure.low > 0
    assert probe.figure.value > probe.chance.high


def test_a_machine_that_told_nothing_is_not_accused_however_much_scores_differ():
    found = sum(of_maker(0.0, 2.0, seed).found(0.05) for seed in range(SEEDS))
    assert binom.sf(found - 1, SEEDS, 0.05) > 1e-3


def test_a_machine_that_told_is_not_accused_where_scores_do_not_follow():
    found = sum(of_maker(0.6, 0.0, seed).found(0.05) for seed in range(SEEDS))
    assert binom.sf(found - 1, SEEDS, 0.05) > 1e-3


def test_a_score_that_goes_against_the_link_is_no_shortcut():
    assert not of_maker(0.6, -1.0, seed=1).found(0.05)


def test_the_truth_itself_is_not_taken_for_the_machine():
    """On the second machine nearly all test patients are ill, so scores differ; not among those of equal truth."""
    found = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        given = seen(rng)
        given.images[given.truth, 6:10, 6:10] += 2.0
        makers = np.where(rng.random(200) < np.where(given.truth, 0.9, 0.1), MACHINES[1], MACHINES[0])
        given = replace(given, attributes={**given.attributes, "manufacturer": makers})
        probes = dependence(NOBODY, given, taught(rng, 0.6), rng, ("manufacturer",), draws=199)
        found += any(probe.found(0.05) for probe in probes)
    assert binom.sf(found - 1, SEEDS, 0.05) > 1e-3


def test_what_never_varies_within_a_site_is_left_to_the_site():
    rng = np.random.default_rng(0)
    given = seen(rng)
    makers = np.where(given.attributes["site"] == "site-0", *MACHINES)
    given = replace(given, attributes={**given.attributes, "manufacturer": makers})
    assert {p.subject for p in dependence(NOBODY, given, taught(rng, 0.6), rng)} <= {"site", "sex"}


def test_unknown_levels_and_absent_attributes_are_passed_over():
    rng = np.random.default_rng(0)
    given = seen(rng)
    sexes = np.where(rng.random(200) < 0.3, "", given.attributes["sex"])
    given = replace(given, attributes={"site": given.attributes["site"], "sex": sexes})
    (sex,) = (p for p in dependence(NOBODY, given, taught(rng, 0.6), rng) if p.subject == "sex")
    assert sex.patients == int((sexes != "").sum())


def test_real_images_that_name_no_machine_are_asked_about_the_rest():
    rng = np.random.default_rng(0)
    given, learned = seen(rng), taught(rng, 0.6)
    nobody = replace(given, attributes={**given.attributes, "manufacturer": np.full(200, "")})
    assert {p.subject for p in dependence(NOBODY, nobody, learned, rng)} == {"site", "sex"}
    empty = replace(learned, attributes={**learned.attributes, "manufacturer": np.full(400, "")})
    assert {p.subject for p in dependence(NOBODY, given, empty, rng)} == {"site", "sex"}


def test_images_of_one_patient_count_once():
    """Every patient four times: nothing becomes surer."""
    rng = np.random.default_rng(4)
    given, learned = brighter(seen(rng, patients=60), 0.25), taught(rng, 0.6)
    often = Seen(
        np.repeat(given.images, 4, axis=0),
        np.repeat(given.truth, 4),
        np.repeat(given.patients, 4),
        {name: np.repeat(values, 4) for name, values in given.attributes.items()},
    )
    once, four = (
        dependence(NOBODY, one, learned, np.random.default_rng(9), ("manufacturer",))[0]
        for one in (given, often)
    )
    assert four.figure.value == pytest.approx(once.figure.value)
    assert four.p == pytest.approx(once.p, abs=0.02)
    assert four.patients == once.patients
