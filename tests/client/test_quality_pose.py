"""A chest that lies, stands on its head or is a negative goes to a person; sound ones pass."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from client.index import Index
from client.intake.ingest import ingest
from client.intake.quarantine import Quarantine
from client.intake.release import Reason, release
from client.quality_pose import check_pose, pose, problem_of, template
from simulations.phantoms import draw_patient, draw_pose, render
from simulations.scanners import SCANNERS, apply, draw
from tests.client.intake_files import image, new_site, set_pixels, to_bytes
from tests.data import shared_data


def header(**tags: object) -> Dataset:
    """A frontal chest radiograph, unless the tags say otherwise."""
    ds = Dataset()
    wanted = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", **tags}
    for name, value in wanted.items():
        setattr(ds, name, value)
    return ds


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    rng = np.random.default_rng(2)
    anatomy = render(draw_patient(rng, positive=False), "PA", 128, draw_pose(rng, "PA"))
    return apply(anatomy, draw(rng, SCANNERS["aster-dr"])).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda a: a, None),
        (lambda a: a[:, ::-1], None),
        (lambda a: a * 0.25 - 1024, None),
        (np.sqrt, None),
        (lambda a: np.pad(a, 20), None),
        (lambda a: np.repeat(np.repeat(a, 3, 0), 3, 1), None),
        (np.rot90, "review-orientation"),
        (lambda a: np.rot90(a, 3), "review-orientation"),
        (lambda a: a[::-1], "review-orientation"),
        (lambda a: -a, "review-inverted"),
        (lambda a: -np.rot90(a), "review-inverted"),
        (lambda a: np.random.default_rng(0).normal(size=a.shape), "review-projection"),
    ],
)
def test_each_way_of_standing_wrong_has_its_name(chest, change, code) -> None:
    report = check_pose(np.ascontiguousarray(change(chest), dtype=np.float32), header())
    assert (report.ok, report.code) == (code is None, code), report
    assert set(report.figures) == {"pose_margin", "pose_fit"}


def test_monochrome1_is_read_as_it_is_meant(chest) -> None:
    turned = header(PhotometricInterpretation="MONOCHROME1")
    assert check_pose(chest.max() - chest, turned).ok
    assert check_pose(chest, turned).code == "review-inverted"


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "CT"},
        {"BodyPartExamined": "HAND"},
        {"BodyPartExamined": ""},
        {"ViewPosition": "LL"},
    ],
)
def test_what_is_no_frontal_chest_is_not_judged(chest, tags) -> None:
    assert check_pose(np.rot90(chest), header(**tags)).ok
    assert check_pose(np.rot90(chest)[:40, :40], header()).ok


def test_on_real_chests_false_alarms_are_rare_and_wrong_ones_are_found() -> None:
    """The patients that did not fit the template, every third image: at most 1% alarms, at least 97% found."""
    folder = shared_data("cxr_pneumonia_3site")
    with (folder / "labels.csv").open() as table:
        rows = [r for r in csv.DictReader(table) if hashlib.sha256(r["patient_id"].encode()).digest()[0] % 2]
    alarms, missed, n = 0, 0, 0
    for row in rows[::3]:
        real = np.asarray(Image.open(folder / row["path"]).convert("L"), dtype=np.float32)
        alarms += problem_of(pose(real)) is not None
        wrong = (np.rot90(real), real[::-1, ::-1], np.rot90(real, 3), 255 - real)
        missed += sum(problem_of(pose(one)) is None for one in wrong)
        n += 1
    assert n > 1000
    assert alarms <= 0.01 * n
    assert missed <= 0.03 * 4 * n


def test_a_chest_that_lies_waits_for_a_person_who_may_let_it_in(tmp_path, chest) -> None:
    site = new_site(tmp_path / "site")
    (tmp_path / "in").mkdir()
    ds = image(1)
    set_pixels(ds, np.rot90(chest).astype(np.uint16).copy(), stored=16)
    (tmp_path / "in" / "x.dcm").write_bytes(to_bytes(ds))
    report = ingest(site, tmp_path / "in", None, workers=1)
    assert report.refused == {"review-orientation": 1}
    with Index(site.index) as index:
        (judged,) = index.judged()
    assert judged.quality["pose_margin"] > template().margin
    assert judged.scanner.startswith("S")
    (waiting,) = Quarantine.of(site).refusals()
    assert release(site, waiting.id, (), Reason("harmless", "ticket-1")).code == "accepted"
