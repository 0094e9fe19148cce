"""The same picture under two patients is found and used in no split; chests that are only alike are not."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from client.dataset import load_dataset
from client.index import Index
from client.quality_hash import NEAR, NEAR_DETAIL, alike, distance, groups, perceptual_hash
from client.twins import twins, without_twins
from simulations.phantoms import draw_patient, draw_pose, render
from simulations.scanners import SCANNERS, apply, draw
from tests.client.made import fill, made_plan, made_site
from tests.client.test_index import ROW
from tests.data import shared_data


def picture(seed: int, size: int = 160) -> np.ndarray:
    """A smooth picture with detail."""
    rng = np.random.default_rng(seed)
    coarse = np.asarray(Image.fromarray(rng.normal(size=(20, 20)).astype(np.float32)).resize((size, size)))
    fine = np.asarray(Image.fromarray(rng.normal(size=(80, 80)).astype(np.float32)).resize((size, size)))
    return (1000 + 300 * coarse + 60 * fine).astype(np.float32)


def jpeg(image: np.ndarray) -> np.ndarray:
    """Through eight bits and a lossy file."""
    low, high = image.min(), image.max()
    buffer = io.BytesIO()
    Image.fromarray(((image - low) / (high - low) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer), dtype=np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a * 0.3 + 50,
        lambda a: a + np.random.default_rng(0).normal(0, 15, a.shape),
        jpeg,
        lambda a: np.asarray(Image.fromarray(a).resize((300, 300))),
        lambda a: np.clip(a, np.quantile(a, 0.02), np.quantile(a, 0.98)),
    ],
)
def test_a_copy_is_near(change) -> None:
    for seed in range(20):
        image = picture(seed)
        copy = np.asarray(change(image), dtype=np.float32)
        first, detail = distance(perceptual_hash(image), perceptual_hash(copy))
        assert first <= NEAR
        assert detail <= NEAR_DETAIL


def test_what_cannot_be_hashed_is_like_nothing() -> None:
    for nothing in (np.zeros((100, 100)), np.full((100, 100), np.nan), np.ones((30, 30)), np.ones(5)):
        assert perceptual_hash(nothing.astype(np.float32)) == ""
    assert alike(["", ""], ["a", "b"]) == []


def test_of_frames_the_middle_one_is_hashed() -> None:
    frames = np.stack([picture(0), picture(1), picture(2)])
    assert perceptual_hash(frames) == perceptual_hash(picture(1))


def test_every_near_pair_of_two_owners_is_found_and_no_other() -> None:
    """Against the plain way of comparing all, on hashes made to lie around the limits."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (60, 64), dtype=np.uint8)
    codes = []
    for row in base:
        for flips in ((0, 0), (NEAR, NEAR_DETAIL), (NEAR + 1, 0), (0, NEAR_DETAIL + 1), (20, 30)):
            bits = np.unpackbits(row)
            for half, count in enumerate(flips):
                bits[half * 256 + rng.choice(256, count, replace=False)] ^= 1
            codes.append(np.packbits(bits).tobytes().hex())
    owners = [str(k % 7) for k in range(len(codes))]
    plain = [
        (i, j)
        for i in range(len(codes))
        for j in range(i + 1, len(codes))
        if owners[i] != owners[j]
        and all(d <= most for d, most in zip(distance(codes[i], codes[j]), (NEAR, NEAR_DETAIL), strict=True))
    ]
    assert len(plain) > 60
    assert alike(codes, owners) == plain


def test_pairs_make_groups() -> None:
    assert groups([(4, 7), (1, 2), (2, 4), (8, 9)]) == [[1, 2, 4, 7], [8, 9]]


def test_among_many_images_that_differ_none_are_alike() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.bytes(64).hex() for _ in range(8000)]
    assert alike(codes, [str(k) for k in range(8000)]) == []


def test_phantoms_of_different_patients_do_not_collide() -> None:
    rng, scanners, codes = np.random.default_rng(9), list(SCANNERS.values()), []
    for number in range(60):
        anatomy = render(draw_patient(rng, positive=False), "PA", 128, draw_pose(rng, "PA"))
        codes.append(perceptual_hash(apply(anatomy, draw(rng, scanners[number % 2])).astype(np.float32)))
    assert alike(codes, [str(k) for k in range(60)]) == []


def test_on_real_chests_one_picture_stands_under_two_patients() -> None:
    """Of 25.2 million pairs of different patients one is alike, and it is the same picture."""
    folder = shared_data("cxr_pneumonia_3site")
    with (folder / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))
    images = [np.asarray(Image.open(folder / row["path"]).convert("L"), dtype=np.float32) for row in rows]
    codes = [perceptual_hash(image) for image in images]
    pairs = alike(codes, [row["patient_id"] for row in rows])
    assert len(pairs) == 1
    one, other = pairs[0]
    assert (images[one] == images[other]).all()


def test_shared_pictures_are_in_no_part(tmp_path) -> None:
    site = made_site(tmp_path)
    fill(site, 30)
    code = perceptual_hash(picture(1))
    with Index(site.index) as index, index.transaction():
        rows = index.images()
        for row in rows[:2]:
            index._run("UPDATE images SET perceptual_hash = ? WHERE sop_uid = ?", (code, row.sop_uid))
    with Index(site.index) as index:
        held = index.images()
    (group,) = twins(held)
    assert [row.sop_uid for row in group] == [row.sop_uid for row in rows[:2]]
    data = load_dataset(site, made_plan())
    used = {name for part in (data.train, data.validation, data.test) for name in part.pseudonyms}
    assert used == {row.patient for row in rows[2:]}


def test_slices_and_one_patients_own_copies_are_left_alone() -> None:
    row = replace(ROW, perceptual_hash=perceptual_hash(picture(1)))
    own = [row, replace(row, sop_uid="2.25.2")]
    assert without_twins(own) == own
    slices = [replace(row, modality="CT"), replace(row, modality="CT", sop_uid="2.25.2", patient="P2")]
    assert without_twins(slices) == slices
    mixed = [
        row,
        replace(row, sop_uid="2.25.2", patient="P2"),
        replace(row, sop_uid="2.25.3", perceptual_hash=""),
    ]
    assert without_twins(mixed) == mixed[2:]
