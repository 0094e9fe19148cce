"""The data set: whole patients, honest splits, one clear error for each thing that cannot train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.dataset import PatientSet, age_band, concat, load_dataset, public_bucket
from client.splits import PARTS, draw_parts
from common.errors import DataError, WrongOrder
from common.plan import Data
from tests.client.made import add, fill, made_image, made_plan, made_site, noise

PLAN = made_plan()


def names(data) -> dict[str, set[str]]:
    """Pseudonyms by part."""
    return {part: set(getattr(data, part).pseudonyms) for part in PARTS}


def test_every_patient_is_in_one_part_with_all_images(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 40, images=2)
    data = load_dataset(site, PLAN)
    parts = names(data)
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 40
    assert (data.train.n_patients, data.validation.n_patients, data.test.n_patients) == (24, 4, 12)
    for part in PARTS:
        patients: PatientSet = getattr(data, part)
        assert patients.n_images == 2 * patients.n_patients
        for number, pseudonym in enumerate(patients.pseudonyms):
            rows = patients.rows_of(number)
            assert len(rows) == 2
            assert (patients.patient_of[rows] == number).all()
            assert (patients.labels[rows] == int(int(pseudonym[1:]) % 3 == 0)).all()
            assert patients.spend_keys[number] == f"spend-{pseudonym}"


def test_the_same_seed_gives_the_same_split_and_another_seed_another(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 30)
    first = names(load_dataset(site, PLAN))
    assert names(load_dataset(site, PLAN)) == first
    assert names(load_dataset(site, made_plan(data={"split_seed": 1}))) != first


def test_pixels_are_those_of_the_patient(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 10)
    flat = np.zeros((32, 32), dtype=np.uint16)
    flat[:16] = 4000
    add(site, made_image(flat, SOPInstanceUID="2.25.7777"), "P-flat", label=1, split="train")
    train = load_dataset(site, PLAN).train
    rows = train.rows_of(train.pseudonyms.index("P-flat"))
    tensor = train.tensor(rows)
    assert tensor.shape == (1, 1, 16, 16)
    assert str(tensor.dtype) == "torch.float32"
    np.testing.assert_allclose(tensor[0, 0, :8], 1.0, atol=1e-3)
    np.testing.assert_allclose(tensor[0, 0, 8:], -1.0, atol=1e-3)


def test_explicit_splits_are_kept(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    for number, part in enumerate(["train"] * 4 + ["validation"] * 2 + ["test"] * 3):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.5{number}")
        add(site, ds, f"P{number}", label=number % 2, split=part)
    parts = names(load_dataset(site, PLAN))
    assert parts == {
        "train": {"P0", "P1", "P2", "P3"},
        "validation": {"P4", "P5"},
        "test": {"P6", "P7", "P8"},
    }


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 10)
    for number, part in enumerate(["train", "test"]):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.5{number}")
        add(site, ds, "P000", label=1, split=part)
    assert code_of(site) == "data-split-conflict"


def code_of(site, plan=PLAN) -> str:
    """The code of the error that loading raises; no patient may be named in it."""
    with pytest.raises(DataError) as error:
        load_dataset(site, plan)
    assert "P0" not in str(error.value)
    return error.value.code


def test_nothing_ingested_yet(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    assert code_of(site) == "data-empty"
    fill(site, 5, label=None)
    assert code_of(site) == "data-empty"


def test_one_class_only(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 12, label=1)
    assert code_of(site) == "data-one-class"


def test_a_site_that_only_tests_may_have_one_class(tmp_path: Path) -> None:
    site = made_site(tmp_path, min_patients=20)
    fill(site, 2, label=1, split="test")
    data = load_dataset(site, PLAN)
    assert (data.train.n_patients, data.test.n_patients) == (0, 2)
    assert data.train.labels.shape == (0, 1)
    assert data.train.tensor(data.train.rows).shape == (0, 1, 16, 16)


def test_two_patients_cannot_be_split(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 2)
    assert code_of(site) == "data-few-patients"


def test_three_patients_are_too_few_for_the_hospitals_own_rule(tmp_path: Path) -> None:
    site = made_site(tmp_path, min_patients=20)
    fill(site, 3)
    assert code_of(site) == "data-few-patients"


@pytest.mark.parametrize("label", [2, 0.5, (0.0, 1.0)])
def test_a_label_that_does_not_fit_the_task_is_refused(tmp_path: Path, label: object) -> None:
    site = made_site(tmp_path)
    fill(site, 4, label=label)
    assert code_of(site) == "data-label"


def test_multiclass_and_multilabel_have_their_own_shapes(tmp_path: Path) -> None:
    site = made_site(tmp_path / "a")
    for number in range(12):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.5{number:02d}")
        add(site, ds, f"P{number}", label=number % 3)
    classes = made_plan(task={"kind": "multiclass", "classes": ["a", "b", "c"]})
    train = load_dataset(site, classes).train
    assert train.labels.dtype == np.int64
    assert train.labels.shape == (train.n_images,)
    site = made_site(tmp_path / "b")
    for number in range(12):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.5{number:02d}")
        add(site, ds, f"P{number}", label=(float(number % 2), 0.0))
    several = made_plan(task={"kind": "multilabel", "classes": ["a", "b"]})
    train = load_dataset(site, several).train
    assert train.labels.dtype == np.float32
    assert train.labels.shape == (train.n_images, 2)


def test_other_modalities_and_unlabelled_images_stay_out(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 9)
    add(site, made_image(noise(1), SOPInstanceUID="2.25.5", Modality="CT"), "P-ct", label=1)
    add(site, made_image(noise(2), SOPInstanceUID="2.25.6"), "P-none")
    assert not {"P-ct", "P-none"} & set.union(*names(load_dataset(site, PLAN)).values())


def test_attributes_are_told_per_image_and_unknown_is_said(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 9, manufacturer="Aster Imaging", age=90, sex="", projection="PA")
    attributes = load_dataset(site, PLAN).train.attributes
    assert set(attributes["manufacturer"]) == {"Aster Imaging"}
    assert set(attributes["sex"]) == {"unknown"}
    assert set(attributes["age"]) == {"80+"}
    assert [age_band(age) for age in (0, 17, 18, 59, 79, None)] == [
        "0-17",
        "0-17",
        "18-39",
        "40-59",
        "60-79",
        "unknown",
    ]


def test_a_subset_keeps_labels_with_their_images(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 30, images=2)
    whole = load_dataset(site, PLAN).train
    part = whole.subset([5, 1, 5])
    assert part.pseudonyms == [whole.pseudonyms[1], whole.pseudonyms[5]]
    assert np.array_equal(part.pixels(part.rows_of(1)), whole.pixels(whole.rows_of(5)))
    assert np.array_equal(part.labels[part.rows_of(0)], whole.labels[whole.rows_of(1)])


def test_pooling_keeps_patients_of_different_sites_apart(tmp_path: Path) -> None:
    sets = []
    for name in ("a", "b"):
        site = made_site(tmp_path / name)
        fill(site, 10)
        sets.append(load_dataset(site, PLAN).train)
    pooled = concat(sets)
    assert pooled.n_patients == 12
    assert pooled.n_images == 12
    last = pooled.n_patients - 1
    assert np.array_equal(pooled.pixels(pooled.rows_of(last)), sets[1].pixels(sets[1].rows_of(5)))
    assert set(pooled.attributes) == set(sets[0].attributes)
    with pytest.raises(WrongOrder):
        concat([])


@settings(max_examples=200, deadline=None)
@given(
    strata=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    test=st.floats(0.05, 0.6),
    validation=st.floats(0.05, 0.25),
    seed=st.integers(0, 5),
)
def test_fractions_hold_within_one_patient(
    strata: list[int], test: float, validation: float, seed: int
) -> None:
    """Over all patients, and within two in every stratum of some size."""
    data = Data(test_fraction=test, validation_fraction=validation, split_seed=seed)
    kinds = {f"{kind}-{n}": kind for kind, count in enumerate(strata) for n in range(count)}
    parts = draw_parts(kinds, data)
    assert set(parts) == set(kinds)
    for part, fraction in (("test", test), ("validation", validation)):
        have = sum(found == part for found in parts.values())
        assert abs(have - fraction * len(kinds)) <= 1
        for kind, count in enumerate(strata):
            of_kind = sum(parts[name] == part for name, own in kinds.items() if own == kind)
            assert abs(of_kind - fraction * count) <= 2


@given(n=st.integers(1, 10**9))
def test_a_public_bucket_is_coarse_and_never_above(n: int) -> None:
    bucket = public_bucket(n)
    assert bucket <= n < bucket * 5 / 3 + 1
    assert public_bucket(bucket) == bucket
    digits = str(bucket).rstrip("0") or "0"
    assert digits in {"1", "15", "2", "3", "5", "7"}


def test_no_patients_is_the_bucket_of_none() -> None:
    assert public_bucket(0) == 0
    assert public_bucket(1) == 1
    assert public_bucket(269) == 200
