"""Head MR without its face: a made head through intake, and what happens to a series that is none."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy import ndimage

from client.deid.deface import CODE, Defaced, check_extra, deface_series
from client.deid.face import by_depth, stack_of
from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings
from client.index import Index
from client.intake.faces import _agreed
from client.intake.folder import list_files
from client.intake.ingest import ingest
from client.intake.outcome import Outcome
from client.intake.pool import Limits
from client.intake.process import Desk, Effort, process, prove
from client.intake.staging import Staging
from common.errors import FileRefused, SettingsError
from tests.client.intake_files import image, new_site, set_pixels, to_bytes

MM = 2.0
SHAPE = (80, 96, 88)
"""Voxels to the patient's left, back and head."""
CENTRE = (40, 50, 52)
NOSE = ((40, 8, 36), (5, 9, 7))
MR = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
}


def ellipsoid(centre, half):
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(np.float32)
    return (((grid - np.array(centre)) / np.array(half)) ** 2).sum(-1) < 1


BRAIN = ellipsoid(CENTRE, (31, 38, 34))


def head() -> np.ndarray:
    """Scalp, skull, folded brain, nose, jaw and neck: float32 [left, back, head]."""
    rng = np.random.default_rng(0)
    picture = np.zeros(SHAPE, np.float32)
    for half, value in (((37, 44, 41), 700), ((34, 41, 38), 80), ((32, 39, 35), 350)):
        picture[ellipsoid(CENTRE, half)] = value
    folds = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 1.5)
    picture[BRAIN] = np.where(folds[BRAIN] > 0, 750, 520)
    picture[ellipsoid(CENTRE, (23, 30, 25))] = 850
    for left in (35, 45):
        picture[ellipsoid((left, 48, 54), (3, 11, 5))] = 180
    picture[ellipsoid(*NOSE)] = 600
    for centre, half in (((40, 22, 22), (20, 19, 15)), ((40, 58, 10), (15, 17, 20))):
        picture[ellipsoid(centre, half) & (picture == 0)] = 520
    picture = ndimage.gaussian_filter(picture, 0.5)
    return np.hypot(picture + rng.normal(0, 12, SHAPE), rng.normal(0, 12, SHAPE)).astype(np.float32)


def slices(volume: np.ndarray, number: int = 0, **attributes: object) -> list[Dataset]:
    """Axial slices from the feet up, rows to the patient's back."""
    made = []
    for at in range(volume.shape[2]):
        ds = image(number, **{**MR, **attributes})
        del ds.ViewPosition
        ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{at + 1}"
        ds.InstanceNumber = at + 1
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-MM * CENTRE[0], -MM * CENTRE[1], MM * (at - CENTRE[2])]
        ds.PixelSpacing, ds.SliceThickness = [MM, MM], MM
        set_pixels(ds, np.clip(volume[:, :, at].T, 0, 4095).astype("<u2"))
        made.append(ds)
    return made


def export(folder: Path, series: list[Dataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for ds in series:
        (folder / f"{ds.SOPInstanceUID}.dcm").write_bytes(to_bytes(ds))
    return folder


def needs_extra() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("deepbet", "quickshear")):
        if os.environ.get("CI"):
            pytest.fail("the extra `deface` is not installed")
        pytest.skip("the extra `deface` is not installed")


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory):
    """A head, a knee and too short a head, taken in by a site that removes faces."""
    needs_extra()
    folder = tmp_path_factory.mktemp("deface")
    site = new_site(folder / "site")
    site = replace(site, deid=DeidSettings(deface_head_mr=True))
    export(folder / "in", slices(head(), 0, BodyPartExamined="HEAD"))
    export(folder / "in", slices(head()[:, :, 40:52], 1, BodyPartExamined="KNEE"))
    export(folder / "in", slices(head()[:, :, 40:50], 2, BodyPartExamined="BRAIN"))
    report = ingest(site, folder / "in", None, workers=1)
    with Index(site.index) as index:
        rows = index.images()
    return site, report, [dcmread(site.dicom / row.file) for row in rows], rows


def test_the_face_goes_and_the_brain_stays(taken_in):
    _, _, held, _ = taken_in
    heads = by_depth([ds for ds in held if ds.BodyPartExamined == "HEAD"])
    assert len(heads) > 60
    bottom = round(float(heads[0].ImagePositionPatient[2]) / MM) + CENTRE[2]
    kept = stack_of(heads).volume
    before = np.clip(head(), 0, 4095).astype(np.uint16)[:, :, bottom : bottom + kept.shape[2]]
    nose, brain = (part[:, :, bottom : bottom + kept.shape[2]] for part in (ellipsoid(*NOSE), BRAIN))
    assert np.array_equal(kept[brain], before[brain])
    assert (kept[nose] < 100).mean() > 0.75


def test_what_was_done_is_said_in_the_image_and_the_row_follows_its_pixels(taken_in):
    site, _, held, rows = taken_in
    for ds in held:
        codes = {str(item.CodeValue) for item in ds.DeidentificationMethodCodeSequence}
        assert (CODE in codes) == (ds.BodyPartExamined == "HEAD")
        assert (ds.get("RecognizableVisualFeatures") == "NO") == (CODE in codes)
    assert len({row.pixel_digest for row in rows}) == len(rows)
    assert not (site.data / "staging").exists()


def test_another_part_of_the_body_is_left_alone_and_half_a_head_waits_for_a_person(taken_in):
    _, report, held, _ = taken_in
    assert sum(ds.BodyPartExamined == "KNEE" for ds in held) > 6
    assert not any(ds.BodyPartExamined == "BRAIN" for ds in held)
    assert report.refused["review-deface"] >= 6


def test_a_series_without_geometry_is_refused_and_its_files_are_as_they_were(tmp_path):
    needs_extra()
    series = slices(head()[:, :, 30:60])
    for ds in series:
        del ds.ImagePositionPatient
    folder = export(tmp_path / "in", series)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileRefused, match="one volume") as caught:
        deface_series(sorted(before))
    assert caught.value.code == "review-deface"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_affine_puts_voxels_where_dicom_says():
    series = slices(head()[:, :, 20:50])
    for ds in series:
        to_bytes(ds)  # gives it the file meta that decoding needs
    stack = stack_of(series)
    left, back, top = (float(v) for v in (stack.affine @ [10, 20, 5, 1])[:3])
    assert (left, back) == (-MM * (10 - CENTRE[0]), -MM * (20 - CENTRE[1]))
    assert top == MM * (5 - CENTRE[2])


def test_a_missing_extra_is_said_before_anything_is_taken_in():
    if all(importlib.util.find_spec(name) is not None for name in ("deepbet", "quickshear")):
        check_extra()
        return
    with pytest.raises(SettingsError, match="deface"):
        check_extra()


def test_what_is_written_anew_is_scanned_anew(tmp_path):
    """A defaced file in which the patient's number stands is not kept, though its first scan agreed."""
    folder, site = tmp_path / "in", new_site(tmp_path / "site")
    export(folder, slices(head()[:, :, 40:43], 0, BodyPartExamined="HEAD"))
    effort = Effort(1, Limits(), lambda _done, _total: None)
    site.data.mkdir(exist_ok=True)
    with Index(site.index) as index:
        desk = Desk(site, index, Staging(site.data / "staging"), Pseudonyms.of(site))
        finished = process(desk, list_files(folder, None, None), effort)
        taken = [one for one in finished if one.outcome.accepted]
        assert len(taken) == 3
        leaking, honest, moved = taken
        path = desk.staging.image(leaking.key)
        ds = dcmread(path)
        ds.Manufacturer = "HOSP-7700000"
        ds.save_as(path)
        moved.file.path.write_bytes(to_bytes(image(5)))
        outcomes = prove(desk, taken, effort)
    assert outcomes[leaking.key].code == "deid-verify"
    assert outcomes[honest.key].accepted
    assert outcomes[moved.key].code == "file-changed"


def test_a_defaced_file_is_kept_only_when_the_second_scan_agrees():
    done = Defaced("digest")
    assert _agreed(done, Outcome("accepted")) is done
    assert _agreed(done, None) is done
    refused = _agreed(done, Outcome("deid-verify", "rule", "remedy")).refusal
    assert refused is not None
    assert refused.code == "deid-verify"
