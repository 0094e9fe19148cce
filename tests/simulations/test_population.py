"""Whom a scenario asks for comes: illness, machines, ages and labels in their shares, recorded and replayed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import date

import numpy as np
import pytest

from common.errors import DataError
from simulations.hospitals import HospitalSpec, write_hospital
from simulations.hospitals.population import Ages, Change, Labelling, Population, Reader, chance, check, draw
from simulations.phantoms import draw_patient, render

MIX = {"aster-dr": 0.75, "borealis-cr": 0.25}
HALF_WAY = date(2023, 1, 1)


def people(count: int = 4000, seed: int = 1, **changes: object):
    population = Population(**{"prevalence": 0.3, "scanners": MIX, "ap": {}, **changes})
    check("somewhere", population)
    return draw(population, count, np.random.default_rng(seed))


def share(rows, wanted) -> float:
    return sum(map(wanted, rows)) / max(1, len(rows))


def test_the_same_generator_draws_the_same_people_and_another_others():
    assert people(200) == people(200)
    assert people(200) != people(200, seed=2)


def test_shares_are_met_to_one_patient():
    rows = people(4001)
    assert abs(sum(one.positive for one in rows) - 0.3 * 4001) <= 1
    assert abs(sum(one.scanner == "aster-dr" for one in rows) - 0.75 * 4001) <= 1


def test_a_share_given_for_one_attribute_is_met_in_every_group_of_it():
    """PadChest-like: one machine sees the sick, and nothing else decides."""
    rows = people(prevalence_by={"scanner": {"aster-dr": 0.7, "borealis-cr": 0.1}})
    for name, wanted in (("aster-dr", 0.7), ("borealis-cr", 0.1)):
        group = [one for one in rows if one.scanner == name]
        assert abs(share(group, lambda one: one.positive) - wanted) < 2 / len(group)


def test_two_attributes_add_up_as_odds():
    by = {"sex": {"F": 0.5}, "projection": {"AP": 0.5}}
    population = Population(0.2, MIX, {}, prevalence_by=by)
    odds = {
        (sex, view): (p := chance(population, {"sex": sex, "projection": view})) / (1 - p)
        for sex in "FM"
        for view in ("AP", "PA")
    }
    assert odds["M", "PA"] == pytest.approx(0.25)
    assert odds["F", "PA"] == pytest.approx(1.0)
    assert odds["F", "AP"] == pytest.approx(4.0)


def test_without_a_word_on_it_no_attribute_tells_who_is_ill():
    rows = people(20_000, female=0.5)
    for name in ("sex", "scanner", "projection"):
        values = sorted({getattr(one, name) for one in rows})
        found = [share([o for o in rows if getattr(o, name) == v], lambda o: o.positive) for v in values]
        assert max(found) - min(found) < 0.04, name  # 5 standard deviations of the smallest group


def test_a_paediatric_site_sees_children():
    rows = people(ages=Ages(mean=7, sd=4, youngest=0, oldest=17))
    assert {one.age for one in rows} <= set(range(18))
    assert 6 < np.mean([one.age for one in rows]) < 8


def test_a_childs_chest_is_smaller_than_an_adults_and_grows_with_age():
    sizes = []
    for age in (1, 8, 15, 40):
        patient = draw_patient(np.random.default_rng(3), positive=True, sex="F", age=age)
        anatomy = render(patient, "PA")
        sizes.append(int(anatomy.lung.sum()))
        assert anatomy.finding.any()
        assert (patient.breast_mm > 0) == (age >= 13)
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.4 * sizes[-1]


def test_readers_are_wrong_as_often_as_they_are_said_to_be():
    readers = (Reader("careful", 3.0), Reader("hasty", 1.0, overcalls=0.2, misses=0.4))
    rows = people(20_000, labelling=Labelling(readers))
    careful = [one for one in rows if one.reader == "careful"]
    hasty = [one for one in rows if one.reader == "hasty"]
    assert abs(len(hasty) - 5000) <= 1
    assert all(one.told == one.positive for one in careful)
    assert share([o for o in hasty if o.positive], lambda o: o.told == 0) == pytest.approx(0.4, abs=0.05)
    assert share([o for o in hasty if not o.positive], lambda o: o.told == 1) == pytest.approx(0.2, abs=0.03)


def test_labels_go_missing_or_are_swapped_and_the_truth_stays():
    rows = people(labelling=Labelling(missing=0.25))
    assert share(rows, lambda one: one.told is None) == pytest.approx(0.25, abs=0.03)
    assert all(one.told == one.positive for one in rows if one.told is not None)
    assert all(one.told == 1 - one.positive for one in people(labelling=Labelling(swapped=True)))


def test_from_the_day_of_a_change_on_only_the_new_machine_is_used():
    rows = people(changes=(Change(HALF_WAY, {"cygnus-dr": 1.0}),), tested_after=HALF_WAY)
    before = [one for one in rows if one.day < HALF_WAY]
    after = [one for one in rows if one.day >= HALF_WAY]
    assert {one.scanner for one in before} == set(MIX)
    assert {one.scanner for one in after} == {"cygnus-dr"}
    assert {one.split for one in after} == {"test"}
    assert Counter(one.split for one in before).keys() == {"train", "validation"}
    assert {one.split for one in people()} == {""}


def test_what_is_written_is_what_was_drawn(tmp_path):
    """The archive's table says what readers said, and leaves out whom nobody read; files follow the change of machine."""
    population = Population(
        0.5,
        {"aster-dr": 1.0},
        {},
        ages=Ages(8, 3, 2, 17),
        labelling=Labelling((Reader("night shift", overcalls=1.0),), missing=0.3),
        changes=(Change(HALF_WAY, {"cygnus-dr": 1.0}),),
        tested_after=HALF_WAY,
    )
    weights = {0: {"aster-dr": 1.0}, 1: {"aster-dr": 1.0}}
    spec = HospitalSpec("oak", "Oak Hospital", 16, 0.5, weights, {}, population=population)
    truth = write_hospital(spec, tmp_path, 5, workers=1)
    again = write_hospital(spec, tmp_path / "again", 5, workers=1)
    assert truth == again
    table = io.StringIO((tmp_path / "labels.csv").read_text(encoding="utf-8"))
    rows = {row["accession"]: row for row in csv.DictReader(table)}
    named = {image.accession for image in truth.images if image.told is not None}
    assert 0 < len(named) < len({image.accession for image in truth.images})
    assert rows.keys() == named
    assert {row["label"] for row in rows.values()} == {"1"}
    assert {row["source"] for row in rows.values()} == {"night shift"}
    for image in truth.images:
        if image.split != "test":
            continue
        assert image.scanner == "cygnus-dr"
    assert {image.scanner for image in truth.images} == {"aster-dr", "cygnus-dr"}
    assert {row["split"] for row in rows.values()} <= {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"scanners": {"unheard-of": 1.0}}, "unknown scanner"),
        ({"prevalence": 1.0}, "everybody"),
        ({"prevalence_by": {"sex": {"F": 1.5}}}, "share"),
        ({"scanners": {"aster-dr": 0.0}}, "weight"),
        ({"labelling": Labelling(())}, "reads"),
        ({"changes": (Change(date(2024, 1, 1), MIX), Change(date(2023, 1, 1), MIX))}, "order"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(changes, word):
    with pytest.raises(DataError) as caught:
        people(8, **changes)
    assert "somewhere" in str(caught.value)
    assert word in str(caught.value)
