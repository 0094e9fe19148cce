"""Volumes: slices by position, spacing measured, every stack by itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.index import Index, VolumeRow
from client.preprocess import assemble_volumes, decode
from client.site import Site
from client.withdraw import withdraw
from tests.client.made import add, made_image, made_site, noise
from tests.data import shared_data

AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL = [0, 1, 0, 0, 0, -1]


def add_slice(site: Site, number: int, position: list[float] | None, **tags: object) -> np.ndarray:
    """One CT slice whose stored values say which it is; returns them in Hounsfield units."""
    raw = noise(number, (8, 10))
    tags = {
        "Modality": "CT",
        "SOPInstanceUID": f"2.25.{1000 - number}",
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.7, 0.6],
        "SliceThickness": 9,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "InstanceNumber": number,
        **tags,
    }
    ds = made_image(raw, **tags)
    if position is not None:
        ds.ImagePositionPatient = position
    add(site, ds, "P1", series_uid="2.25.77")
    return raw.astype(np.float32) - 1024


def volumes(site: Site) -> list[VolumeRow]:
    """All volumes of the index."""
    with Index(site.index) as index:
        return index.volumes()


def voxels(site: Site, row: VolumeRow) -> np.ndarray:
    """The array of a volume."""
    return np.load(site.data / "volumes" / row.file)


def test_slices_are_ordered_by_position_and_not_by_name_or_number(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    heights = [5.0, -2.5, 0.0, 2.5]
    made = {z: add_slice(site, number, [10, 20, z]) for number, z in enumerate(heights)}
    assert assemble_volumes(site) == 1
    (row,) = volumes(site)
    assert np.array_equal(voxels(site, row), np.stack([made[z] for z in sorted(heights)]))
    assert row.shape == (4, 8, 10)
    assert voxels(site, row).dtype == np.float32
    assert row.spacing_mm == pytest.approx((2.5, 0.7, 0.6)), "from positions, not from SliceThickness"
    assert row.origin_mm == (10.0, 20.0, -2.5)
    assert row.regular
    assert row.orientation == tuple(map(float, AXIAL))
    assert row.patient == "P1"


def test_oblique_stacks_are_measured_along_their_normal(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    tilt = np.radians(20)
    orientation = [1, 0, 0, 0, float(np.cos(tilt)), float(np.sin(tilt))]
    normal = np.cross(orientation[:3], orientation[3:])
    for number in range(3):
        place = [round(float(v), 6) for v in 3.0 * number * normal]
        add_slice(site, number, place, ImageOrientationPatient=[round(v, 6) for v in orientation])
    assemble_volumes(site)
    (row,) = volumes(site)
    assert row.spacing_mm[0] == pytest.approx(3.0, abs=1e-4)
    assert row.regular


def test_a_missing_slice_is_flagged(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    for number, z in enumerate([0, 2, 4, 8, 10]):
        add_slice(site, number, [0, 0, z])
    assemble_volumes(site)
    (row,) = volumes(site)
    assert not row.regular
    assert row.spacing_mm[0] == 2.0


def test_scouts_and_repeats_become_their_own_stacks(tmp_path: Path) -> None:
    """Two echoes at the same places, and one sagittal scout."""
    site = made_site(tmp_path)
    echoes = [[add_slice(site, 10 * echo + n, [0, 0, 2 * n]) for n in range(3)] for echo in range(2)]
    add_slice(site, 90, [0, 0, 0], ImageOrientationPatient=SAGITTAL)
    assert assemble_volumes(site) == 2
    for row, echo in zip(volumes(site), echoes, strict=True):
        assert np.array_equal(voxels(site, row), np.stack(echo))


def test_without_positions_the_order_of_acquisition_holds_and_spacing_is_unknown(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    made = [add_slice(site, number, None) for number in (2, 0, 1)]
    assemble_volumes(site)
    (row,) = volumes(site)
    assert np.array_equal(voxels(site, row), np.stack([made[1], made[2], made[0]]))
    assert row.spacing_mm[0] == 0.0


def test_a_single_image_is_no_volume_and_other_modalities_are_left_alone(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    add_slice(site, 0, [0, 0, 0])
    for number in range(2):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.{number}", ImagePositionPatient=[0, 0, number])
        add(site, ds, "P2", series_uid="2.25.88")
    assert assemble_volumes(site) == 0
    assert volumes(site) == []


def test_a_volume_is_made_again_only_when_its_series_grew(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    for number in range(2):
        add_slice(site, number, [0, 0, number])
    assert assemble_volumes(site) == 1
    assert assemble_volumes(site) == 0
    add_slice(site, 2, [0, 0, 2])
    assert assemble_volumes(site) == 1
    (row,) = volumes(site)
    assert row.shape[0] == 3
    assert len(row.sop_uids) == 3
    assert [path.name for path in (site.data / "volumes").iterdir()] == [row.file]


def test_a_withdrawn_patients_volumes_leave_the_disk(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    for number in range(2):
        add_slice(site, number, [0, 0, number])
    assemble_volumes(site)
    withdraw(site, "P1")
    assert volumes(site) == []
    assert not list((site.data / "volumes").iterdir())


def enhanced_mr(frames: np.ndarray, heights: list[float]) -> Dataset:
    """An enhanced object: geometry and slope in functional groups, frames in any order."""
    ds = made_image(frames, Modality="MR", SOPInstanceUID="2.25.5")
    measures, orientation, transform, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [1.5, 1.25]
    orientation.ImageOrientationPatient = AXIAL
    transform.RescaleSlope, transform.RescaleIntercept = 2, 0
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([transform])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for height in heights:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, height]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return ds


def test_an_enhanced_object_is_a_volume_by_itself(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    frames = noise(3, (4, 8, 8))
    heights = [6.0, 0.0, 4.0, 2.0]
    add(site, enhanced_mr(frames, heights), "P1")
    assert assemble_volumes(site) == 1
    (row,) = volumes(site)
    assert np.array_equal(voxels(site, row), frames[np.argsort(heights)].astype(np.float32) * 2)
    assert row.spacing_mm == (2.0, 1.5, 1.25)
    assert row.sop_uids == ("2.25.5",)


def test_real_ct_becomes_a_volume(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    heights = []
    for path in sorted(shared_data("dicom_multivendor").glob("CT_Philips_Ingenuity*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path)
            units = decode(ds)
            heights.append((float(ds.ImagePositionPatient[2]), units))
            add(site, ds, "P1", series_uid="2.25.77")
    assemble_volumes(site)
    rows = volumes(site)
    assert sum(row.shape[0] for row in rows) <= len(heights)
    for row in rows:
        assert row.spacing_mm[0] > 0
        assert voxels(site, row).min() >= -1024
