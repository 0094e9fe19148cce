"""The quality gate: it stops what is broken and lets real patients through."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from client.deid.pixels import decode
from client.index import Index, Percentiles
from client.intake.ingest import ingest
from client.preprocess.modality import to_units
from client.quality import (
    ENOUGH_IMAGES,
    QualityContext,
    check,
    pixel_digest,
    site_percentiles,
)
from client.quality_figures import measure, noise
from client.quality_site import refresh_percentiles
from client.quality_tags import check_tags
from tests.client import intake_files
from tests.client.made import SOP_CLASS, fill, made_site
from tests.data import shared_data

DX = QualityContext("DX")


def chest(seed: int = 0, size: int = 256) -> np.ndarray:
    """A smooth scene with an edge and a little noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:size, :size] / size
    scene = 2000 + 900 * np.sin(7 * rows) * np.cos(5 * cols) + 600 * (cols > 0.5)
    return (scene + rng.normal(0, 15, scene.shape)).astype(np.float32)


def broken(kind: str) -> np.ndarray:
    """One image for each way of being useless."""
    image = chest()
    rng = np.random.default_rng(1)
    if kind == "hot-pixel":
        image = np.full_like(image, 100) + rng.integers(0, 3, image.shape)
        image[3, 3] = 60000
    made = {
        "small": image[:20],
        "blank": np.full_like(image, 7),
        "binary": (image > 2000).astype(np.float32),
        "saturated": np.minimum(image, np.quantile(image, 0.1)),
        "hot-pixel": image,
        "ramp": np.tile(np.arange(256, dtype=np.float32), (256, 1)),
        "noise": rng.normal(0, 1, image.shape).astype(np.float32),
        "dark": np.where(np.arange(256) < 12, image + 4000, image / 1000),
        "nan": np.where(image > 2500, np.nan, image),
        "flat": np.zeros(5, dtype=np.float32),
    }
    return made[kind].astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("small", "quality-small"),
        ("blank", "quality-blank"),
        ("binary", "quality-clipped"),
        ("saturated", "quality-clipped"),
        ("hot-pixel", "quality-contrast"),
        ("ramp", "quality-sharpness"),
        ("noise", "quality-noise"),
        ("dark", "quality-exposure"),
        ("nan", "quality-broken"),
        ("flat", "quality-broken"),
    ],
)
def test_each_broken_image_is_refused_by_its_own_name(kind: str, code: str) -> None:
    report = check(broken(kind), DX)
    assert (report.ok, report.code) == (False, code)
    assert report.rule
    assert report.remedy


def test_a_sound_image_passes_upside_down_inverted_and_in_other_units() -> None:
    for image in (chest(), chest()[::-1], 4095 - chest(), chest() * 1e-3, chest() - 1024):
        assert check(image.astype(np.float32), DX).ok


def test_of_frames_the_middle_one_is_judged() -> None:
    frames = np.stack([broken("blank"), chest(), broken("blank")])
    assert check(frames, DX).ok


def test_noise_is_measured_and_not_the_anatomy() -> None:
    rng = np.random.default_rng(1)
    for sigma in (5.0, 20.0, 80.0):
        scene = chest() + rng.normal(0, sigma, (256, 256))
        assert noise(scene.astype(np.float32)) == pytest.approx(np.hypot(sigma, 15), rel=0.06)


def test_blur_lowers_sharpness() -> None:
    image = chest()
    blurred = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4
    assert measure(blurred)["sharpness"] < measure(image)["sharpness"] / 2


def test_exact_duplicates_are_seen_whatever_their_file() -> None:
    image = chest()
    assert pixel_digest(image) == pixel_digest(np.asfortranarray(image))
    assert pixel_digest(image) != pixel_digest(image.reshape(128, 512))
    assert check(image, QualityContext("DX", duplicate=True)).code == "quality-duplicate"


def test_a_site_judges_by_its_own_percentiles_once_it_has_seen_enough() -> None:
    figures = [measure(_seen(seed)) for seed in range(ENOUGH_IMAGES)]
    assert site_percentiles(figures[:-1]) is None
    own = site_percentiles(figures)
    assert own is not None
    assert own.images == ENOUGH_IMAGES
    context = QualityContext("DX", percentiles=own)
    assert all(check(_seen(seed), context).ok for seed in range(ENOUGH_IMAGES))
    refused = {check(change(_seen(100)), context).code for change in (_much_noise, _faint, _bright)}
    assert refused == {"quality-noise", "quality-contrast", "quality-exposure"}
    assert all(check(change(_seen(100)), DX).ok for change in (_faint, _bright))


def _seen(seed: int) -> np.ndarray:
    """The same scene, a little brighter each time."""
    return chest(seed, 64) + 2 * seed


def _much_noise(image: np.ndarray) -> np.ndarray:
    return image + np.random.default_rng(0).normal(0, 40, image.shape).astype(np.float32)


def _faint(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) * 0.2 + image.mean()


def _bright(image: np.ndarray) -> np.ndarray:
    return image + 2500


def test_percentiles_are_refreshed_from_the_index(tmp_path) -> None:
    site = made_site(tmp_path / "site")
    fill(site, 3, quality=measure(chest()), scanner="S1")
    with Index(site.index) as index:
        assert refresh_percentiles(index) == 0
    many = made_site(tmp_path / "many")
    fill(many, ENOUGH_IMAGES, quality=measure(chest()), scanner="S1")
    with Index(many.index) as index:
        assert refresh_percentiles(index) == 1
        own = index.percentiles("DX", "S1")
    assert isinstance(own, Percentiles)
    assert own.images == ENOUGH_IMAGES


def test_an_ingestion_takes_the_sites_own_bounds_anew_and_the_next_one_judges_by_them(tmp_path: Path) -> None:
    """Two hundred images of one scanner, all alike; then one that the release's own bounds would let pass."""
    site = intake_files.new_site(tmp_path / "site")

    def take(number: int, scale: float = 1.0) -> dict[str, int]:
        folder = tmp_path / str(number)
        folder.mkdir()
        ds = intake_files.image(
            number, Modality="DX", SOPClassUID=SOP_CLASS, ImageType=["ORIGINAL", "PRIMARY"]
        )
        intake_files.set_pixels(ds, (intake_files.chest(0) * scale).astype("<u2") + number)
        (folder / "a.dcm").write_bytes(intake_files.to_bytes(ds))
        return ingest(site, folder, None, workers=1).refused

    assert take(1) == {}
    with Index(site.index) as index:
        (first,) = index.images()
    fill(site, ENOUGH_IMAGES, scanner=first.scanner, quality=first.quality)
    assert take(2, 0.5) == {}  # there are no bounds of the site's own before this ingestion
    with Index(site.index) as index:
        own = index.percentiles("DX", first.scanner)
        assert own is not None
        assert own.images == ENOUGH_IMAGES + 2
    assert list(take(3, 0.25)) == ["quality-exposure"]


def test_real_radiographs_pass() -> None:
    """At most 1% of 7,099 chest X-rays of four hospitals, exact duplicates apart; every fourth is looked at."""
    paths = sorted((shared_data("cxr_pneumonia_3site") / "images").glob("*.png"))[::4]
    codes = Counter(
        check(np.asarray(Image.open(p), dtype=np.float32), QualityContext("CR")).code for p in paths
    )
    assert codes[None] >= 0.99 * len(paths), codes


def test_real_cr_ct_and_mr_pass() -> None:
    judged = 0
    for path in sorted(shared_data("dicom_multivendor").glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path)
            if ds.Modality not in {"CR", "CT", "MR"}:
                continue
            pixels = to_units(ds, decode(ds)).astype(np.float32)
            report, tags = check(pixels, QualityContext(ds.Modality)), check_tags(ds)
        assert (report.code, tags.code) == (None, None), (path.name, report, tags)
        judged += 1
    assert judged == 108


def header(**tags: object) -> Dataset:
    """A header of these tags."""
    ds = Dataset()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({}, None),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, None),
        ({"ImageOrientationPatient": None}, None),
        ({"ImageOrientationPatient": [0.999, 0.02, -0.03, -0.02, 0.999, 0.01]}, None),
        ({"ImageOrientationPatient": [1, 0, 0]}, "quality-orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "quality-orientation"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "quality-orientation"),
        ({"ViewPosition": "PA", "PatientOrientation": ["L", "F"], "BodyPartExamined": "CHEST"}, None),
        ({"ViewPosition": "PA", "PatientOrientation": ["A", "F"]}, "quality-orientation"),
        ({"ViewPosition": "LL", "PatientOrientation": ["L", "F"]}, "quality-orientation"),
        ({"ViewPosition": "LL", "PatientOrientation": ["P", "F"]}, None),
        ({"ViewPosition": "PA", "PatientOrientation": ""}, None),
        (
            {"ViewPosition": "AP", "PatientOrientation": ["R", "F"], "BodyPartExamined": "CHEST"},
            "quality-laterality",
        ),
        ({"ViewPosition": "AP", "PatientOrientation": ["R", "F"], "BodyPartExamined": "HAND"}, None),
        ({"Laterality": "L", "ImageLaterality": "R"}, "quality-laterality"),
        ({"Laterality": "L", "ImageLaterality": "L"}, None),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tags: dict, code: str | None) -> None:
    report = check_tags(header(**tags))
    assert (report.ok, report.code) == (code is None, code)
