"""CT slices for timing intake: 512 x 512 words of 16 bits under the header of a real scanner.

Header and anatomy come from the slice that pydicom carries with it (GE, 1997, public domain): 79 public
attributes, two dozen of its private ones, and the persons and numbers a hospital adds. Ten slices
are of one patient, as follow-ups are: each its own study and series, so that nobody can save work by knowing the last
one, and so that no volume is put together, which no peer does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from scipy.ndimage import zoom

SIDE: Final = 512
_PRIVATE_KEPT: Final = 0x0019102E
"""Of the scanner's private block 0019, elements up to here stay; all other private ones go."""
_NOISE: Final = 8.0
"""Hounsfield units, standard deviation; what enlarging has smoothed away."""
_ROOT: Final = "1.2.276.0.7230010.3.1"


def write_slices(folder: Path, count: int, seed: int = 1) -> list[Path]:
    """Write identified slices, one file each; the same seed writes the same bytes.

    Args:
        folder: made when it is not there.
        count: number of files.
        seed: of anatomy's place and noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ds = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    tissue = zoom(ds.pixel_array.astype(np.float32), SIDE / ds.Rows, order=1)
    _without_most_private(ds)
    paths = []
    for number in range(count):
        _identify(ds, number)
        _fill(ds, tissue, rng)
        paths.append(folder / f"slice{number:05d}.dcm")
        dcmwrite(paths[-1], ds, enforce_file_format=True)
    return paths


def _without_most_private(ds: Dataset) -> None:
    kept = range(0x00190010, _PRIVATE_KEPT + 1)
    for tag in [tag for tag in ds.keys() if tag.is_private and tag not in kept]:  # noqa: SIM118 (tags only)
        del ds[tag]
    del ds[0xFFFCFFFC]


def _identify(ds: Dataset, number: int) -> None:
    study = f"{_ROOT}.{number + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, f"{study}.1", f"{study}.1.1"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.FrameOfReferenceUID = f"{study}.2"
    patient = number // 10
    ds.PatientName, ds.PatientID = f"Abendroth{patient}^Wilhelmina", f"HOSP-77{patient:05d}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19550417", "F", "065Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20210312"
    ds.AccessionNumber, ds.StudyID = f"ACC{number:06d}", f"ST{number:05d}"
    ds.ReferringPhysicianName = ds.PerformingPhysicianName = "Quackenbush^Ottilie"
    ds.OperatorsName, ds.NameOfPhysiciansReadingStudy = "Federspiel^Kunigunde", "Quackenbush^Ottilie"
    ds.InstitutionName, ds.InstitutionAddress = "Sankt Florian Krankenhaus", "Am Anger 7, Nirgendheim"
    ds.InstitutionalDepartmentName, ds.DeviceSerialNumber = "Radiologie", "SN998877"
    ds.StudyDescription, ds.SeriesDescription, ds.ProtocolName = "CT Thorax", "Lunge 5 mm", "Thorax nativ"
    ds.BodyPartExamined, ds.InstanceNumber = "CHEST", number + 1
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = f"SPS{number:05d}", f"RP{number:05d}"
    item.RequestedProcedureDescription = "CT Thorax"
    ds.RequestAttributesSequence = [item]


def _fill(ds: Dataset, tissue: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    moved = np.roll(tissue, tuple(rng.integers(-20, 21, 2)), axis=(0, 1))
    pixels = np.clip(moved + rng.normal(0, _NOISE, moved.shape), -2000, 3071).astype("<i2")
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelSpacing = [0.66, 0.66]
    ds.PixelData = pixels.tobytes()
