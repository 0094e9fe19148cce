"""The same chests on every scanner: a probe that only a simulation can make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from simulations import phantoms, scanners


@dataclass(frozen=True, eq=False)
class SameChests:
    """One image of each patient on each scanner; row i is the same patient, pose and projection."""

    images: Mapping[str, npt.NDArray[np.uint16]] = field(repr=False)
    """By scanner name: uint16 [patients, 256, 256], MONOCHROME2, of the scanner's bits."""
    findings: Mapping[str, npt.NDArray[np.bool_]] = field(repr=False)
    """By scanner name: where the finding is, bool [patients, 256, 256]."""
    labels: npt.NDArray[np.int64]
    projections: tuple[phantoms.Projection, ...]
    grades: tuple[str, ...]


def same_chests(seed: int, n_patients: int, prevalence: float = 0.5) -> SameChests:
    """Expose the same patients on every scanner, each with that scanner's own settings and noise."""
    shape = (n_patients, 256, 256)
    images = {name: np.empty(shape, dtype=np.uint16) for name in scanners.SCANNERS}
    findings = {name: np.zeros(shape, dtype=np.bool_) for name in scanners.SCANNERS}
    labels = np.zeros(n_patients, dtype=np.int64)
    projections: list[phantoms.Projection] = []
    grades = []
    for row, child in enumerate(np.random.SeedSequence(seed).spawn(n_patients)):
        rng = np.random.default_rng(child)
        labels[row] = row < round(n_patients * prevalence)
        patient = phantoms.draw_patient(rng, bool(labels[row]))
        projections.append("AP" if rng.random() < 0.4 else "PA")
        grades.append(patient.grade)
        pose = phantoms.draw_pose(rng, projections[-1])
        anatomy = phantoms.render(patient, projections[-1], pose=pose)
        for name, scanner in scanners.SCANNERS.items():
            settings = scanners.draw(rng, scanner)
            images[name][row] = scanners.apply(anatomy, settings)
            if labels[row]:
                findings[name][row] = scanners.on_detector(anatomy.finding, anatomy, settings)
    return SameChests(images, findings, labels, tuple(projections), tuple(grades))


class Machine(Protocol):
    """What a header says of a machine."""

    @property
    def sop(self) -> str:
        """DX or CR."""

    @property
    def manufacturer(self) -> str:
        """Invented."""

    @property
    def model(self) -> str:
        """Invented."""

    @property
    def bits(self) -> int:
        """Of a pixel."""


def probe_dataset(pixels: npt.NDArray[np.uint16], scanner: Machine) -> Dataset:
    """The least DICOM header with which `client.preprocess` reads such an image; nobody is named."""
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    ds.Modality = scanner.sop
    ds.Manufacturer, ds.ManufacturerModelName = scanner.manufacturer, scanner.model
    ds.SamplesPerPixel, ds.Rows, ds.Columns = 1, *pixels.shape
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        16,
        scanner.bits,
        scanner.bits - 1,
        0,
    )
    ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
    ds.WindowCenter, ds.WindowWidth = f"{2 ** (scanner.bits - 1)}", f"{2**scanner.bits}"
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds
