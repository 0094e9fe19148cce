"""Virtual hospitals: ordinary identified DICOM, every trap in its place, the same bytes for the same seed."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from common.errors import DataError, StorageError
from simulations import scanners
from simulations.hospitals import (
    HospitalSpec,
    Truth,
    default_federation,
    probe_dataset,
    same_chests,
    write_federation,
    write_hospital,
)
from simulations.hospitals.patientfiles import PatientTask, patient_files
from simulations.scanners import SCANNERS, WEAK

_FEDERATION = {spec.name: spec for spec in default_federation()}


def _small(name: str, patients: int = 12, **changes: object) -> HospitalSpec:
    plain: dict[str, object] = {"burned_in": 0, "broken": 0, "duplicated": 0}
    return dataclasses.replace(_FEDERATION[name], patients=patients, **(plain | changes))


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def alder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    """Twelve patients with three burned-in images, six broken files and two duplicates."""
    folder = tmp_path_factory.mktemp("alder")
    spec = _small("alder", burned_in=3, broken=6, duplicated=2)
    return folder, write_hospital(spec, folder, 7, workers=1)


def test_default_federation_is_confounded_and_large_enough_to_test() -> None:
    """Six hospitals, four scanners, 3 to 1 prevalence, 20 of each class in 35% of each hospital."""
    specs = default_federation()
    assert sum(spec.patients for spec in specs) == 1620
    assert {name for spec in specs for w in spec.scanners.values() for name in w} == set(SCANNERS)
    for spec in specs:
        tested = min(spec.positives, spec.patients - spec.positives) * 0.35
        assert tested >= 22, spec.name
    prevalences = sorted(spec.prevalence for spec in specs)
    odds = [p / (1 - p) for p in (np.mean(prevalences[:3]), np.mean(prevalences[3:]))]
    assert prevalences[3] > 2.5 * prevalences[2]
    assert odds[1] > 5 * odds[0]


def test_site_is_not_scanner_in_the_default_federation() -> None:
    """The weak scanner serves two hospitals of opposite prevalence, one wholly and one in part."""
    weak = [spec for spec in default_federation() if any(WEAK in w for w in spec.scanners.values())]
    assert len(weak) >= 2
    assert max(s.prevalence for s in weak) > 0.7
    assert min(s.prevalence for s in weak) < 0.3
    assert any(set(s.scanners[0]) == {WEAK} for s in weak)
    assert any(len(s.scanners[0]) > 1 for s in weak)


def test_default_federation_scales_and_refuses_the_impossible() -> None:
    specs = default_federation(13, 1301, seed=4)
    assert len({spec.name for spec in specs}) == 13
    assert sum(spec.patients for spec in specs) == 1301
    assert default_federation(seed=1) == default_federation(seed=1)
    assert default_federation(seed=1) != default_federation(seed=2)
    with pytest.raises(DataError):
        default_federation(10, 50)


def test_default_traps_are_many_enough_to_be_counted_in_public() -> None:
    """Counts under 11 are suppressed on release: the planted ones are above."""
    assert any(spec.burned_in >= 12 for spec in _FEDERATION.values())
    assert any(spec.broken >= 12 for spec in _FEDERATION.values())
    assert any(spec.monochrome1 for spec in _FEDERATION.values())
    assert any(spec.syntax in {"jpeg2000", "jpegls"} for spec in _FEDERATION.values())


def test_every_readable_file_is_an_identified_radiograph(alder: tuple[Path, Truth]) -> None:
    folder, truth = alder
    assert truth.patients() == 12
    assert truth.patients(1) == round(12 * 0.74)
    for image in truth.readable:
        ds = pydicom.dcmread(folder / image.path)
        assert ds.SOPInstanceUID == image.sop_uid
        assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
        assert ds.Modality in {"DX", "CR"}
        assert (ds.Rows, ds.Columns) == (256, 256)
        assert ds.PatientID == image.patient
        assert ds.AccessionNumber == image.accession
        assert ds.ViewPosition == image.projection
        assert ds.Manufacturer == SCANNERS[image.scanner].manufacturer
        assert ds.BitsStored == SCANNERS[image.scanner].bits
        assert ds.BurnedInAnnotation == "NO"
        for keyword in ("PatientBirthDate", "IssuerOfPatientID", "DeviceSerialNumber", "StationName", "KVP"):
            assert str(ds[keyword].value)
        family = str(ds.PatientName).split("^")[0]
        assert family in str(ds.ImageComments)
        assert family in str(ds[0x0019, 0x1001].value)
        assert family in ds.RequestAttributesSequence[0].ScheduledProcedureStepDescription
        born, seen = ds.PatientBirthDate, ds.StudyDate
        age = int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:])
        assert ds.PatientAge == f"{age:03d}Y"


def test_pixels_on_disk_are_what_the_scanner_made(alder: tuple[Path, Truth]) -> None:
    folder, truth = alder
    pixels = pydicom.dcmread(folder / truth.readable[0].path).pixel_array
    assert pixels.dtype == np.uint16
    assert pixels.std() > 100
    assert pixels.max() < 2**14


def test_labels_are_by_accession_and_complete(alder: tuple[Path, Truth]) -> None:
    folder, truth = alder
    rows = list(csv.DictReader((folder / "labels.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["accession", "label", "source", "version"]
    assert {r["accession"]: int(r["label"]) for r in rows} == {i.accession: i.label for i in truth.images}
    assert len(rows) == len({r["accession"] for r in rows})


def test_traps_are_extra_files_and_break_as_they_say(alder: tuple[Path, Truth]) -> None:
    """No patient loses an image to a trap: each trapped file stands beside a readable one."""
    folder, truth = alder
    traps = Counter(image.trap for image in truth.images if image.trap)
    assert traps["burned-in"] == 3
    assert traps["duplicate"] == 2
    assert sum(traps[k] for k in ("empty", "truncated", "header", "not-dicom")) == 6
    assert traps["empty"] == 1
    readable = {image.patient for image in truth.readable}
    assert {image.patient for image in truth.images} == readable
    by_kind = {image.trap: folder / image.path for image in truth.images}
    assert by_kind["empty"].stat().st_size == 0
    for kind in ("header", "not-dicom"):
        with pytest.raises(pydicom.errors.InvalidDicomError):
            pydicom.dcmread(by_kind[kind])
    whole = folder / truth.readable[0].path
    assert by_kind["truncated"].stat().st_size < 0.7 * whole.stat().st_size


def test_burned_in_images_are_marked_and_really_burned(alder: tuple[Path, Truth]) -> None:
    folder, truth = alder
    for image in truth.images:
        if image.trap != "burned-in":
            continue
        ds = pydicom.dcmread(folder / image.path)
        assert ds.BurnedInAnnotation == "YES"
        twin = next(
            pydicom.dcmread(folder / i.path).pixel_array
            for i in reversed(truth.readable)
            if i.accession == image.accession
        )
        written = (ds.pixel_array != twin) & (ds.pixel_array == 2**14 - 1)
        assert 150 < written.sum() < 4000
        assert written[:200].sum() == 0


def test_duplicates_are_the_same_bytes(alder: tuple[Path, Truth]) -> None:
    folder, truth = alder
    plain = {image.sop_uid: folder / image.path for image in truth.readable}
    for image in truth.images:
        if image.trap == "duplicate":
            assert (folder / image.path).read_bytes() == plain[image.sop_uid].read_bytes()


def test_every_patient_image_and_accession_is_unique(alder: tuple[Path, Truth]) -> None:
    _, truth = alder
    assert len({i.sop_uid for i in truth.readable}) == len(truth.readable)
    assert len({i.path for i in truth.images}) == len(truth.images)
    owner = {i.accession: i.patient for i in truth.images}
    assert all(owner[i.accession] == i.patient for i in truth.images)


def test_same_seed_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    spec = _small("elm", 26, broken=4)
    steps: list[tuple[int, int]] = []
    one = write_hospital(spec, tmp_path / "one", 5, workers=1)
    two = write_hospital(
        spec, tmp_path / "two", 5, lambda done, total: steps.append((done, total)), workers=2
    )
    assert one == two
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    assert steps[-1] == (26, 26)
    write_hospital(_small("elm", 4), tmp_path / "other", 6, workers=1)
    assert not set(_digests(tmp_path / "one").values()) & set(_digests(tmp_path / "other").values())


def test_a_hospital_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    alone, beside = _small("cedar", 4), _small("fir", 3)
    write_hospital(alone, tmp_path / "alone", 5, workers=1)
    write_federation([(beside, tmp_path / "b"), (alone, tmp_path / "c")], 5, workers=1)
    assert _digests(tmp_path / "alone") == _digests(tmp_path / "c")


def test_a_hospital_can_grow_without_changing_its_patients() -> None:
    """Patient 3 is the same in a hospital of 10 and of 1000, given the same label."""
    few, many = (_small("fir", patients) for patients in (10, 1000))
    for (path, data, _), (path_again, data_again, _) in zip(
        patient_files(few, PatientTask(3, True), 1), patient_files(many, PatientTask(3, True), 1), strict=True
    ):
        assert path == path_again
        assert data == data_again


def _first(spec: HospitalSpec) -> pydicom.Dataset:
    _, data, _ = next(patient_files(spec, PatientTask(0, True), 3))
    return pydicom.dcmread(io.BytesIO(data))


def test_monochrome1_is_the_complement_of_the_same_exposure() -> None:
    inverted, plain = _first(_small("cedar")), _first(_small("cedar", monochrome1=False))
    assert inverted.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(1023 - inverted.pixel_array, plain.pixel_array)


@pytest.mark.parametrize("syntax", ["jpegls", "jpeg2000", "rle", "implicit"])
def test_every_transfer_syntax_is_lossless(syntax: str) -> None:
    written, plain = _first(_small("dogwood", syntax=syntax)), _first(_small("dogwood", syntax="explicit"))
    assert np.array_equal(written.pixel_array, plain.pixel_array)
    assert written.SOPInstanceUID == plain.SOPInstanceUID
    assert (written.file_meta.TransferSyntaxUID == JPEGLSLossless) == (syntax == "jpegls")


def test_a_folder_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError):
        write_hospital(_small("fir", 2), tmp_path / "file", 1, workers=1)


def test_a_spec_with_an_unknown_scanner_is_refused() -> None:
    with pytest.raises(DataError, match="unknown scanner"):
        _small("fir", scanners={0: {"hal": 1.0}, 1: {"hal": 1.0}})


def test_same_chests_differ_only_by_scanner() -> None:
    """One row is one patient on all scanners: outlines agree although pixels do not."""
    chests = same_chests(1, 4)
    assert set(chests.images) == set(SCANNERS)
    assert chests.labels.tolist() == [1, 1, 0, 0]
    again = same_chests(1, 4)
    for name in SCANNERS:
        assert np.array_equal(chests.images[name], again.images[name])
        assert chests.findings[name][:2].any(axis=(1, 2)).all()
        assert not chests.findings[name][2:].any()
    small = {n: v.reshape(4, 16, 16, 16, 16).mean(axis=(2, 4)) for n, v in chests.images.items()}
    same = np.corrcoef(small["aster-dr"][0].ravel(), small["cygnus-dr"][0].ravel())[0, 1]
    assert same > 0.8


def test_probe_dataset_reads_back_its_pixels() -> None:
    pixels = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256) % 1024
    ds = probe_dataset(pixels, scanners.SCANNERS["borealis-cr"])
    assert np.array_equal(ds.pixel_array, pixels)
    assert "PatientName" not in ds


def test_two_hospitals_do_not_share_their_patients() -> None:
    """The first patient of one hospital is nobody at the other, given the same seed and machine."""
    one = _small("alder")
    first, second = _first(one), _first(dataclasses.replace(one, name="other"))
    assert not np.array_equal(first.pixel_array, second.pixel_array)
    assert first.PatientBirthDate != second.PatientBirthDate
