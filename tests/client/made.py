"""Small de-identified files and sites for the tests of index, store, data set and volumes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from client.index import ImageRow, Index
from client.policy import Policy
from client.quality import pixel_digest
from client.site import Site, init_site
from common.plan import Plan, plan_from_dict

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.1.1"


def made_image(stored: np.ndarray, **tags: object) -> Dataset:
    """An in-memory image of these stored values (unsigned 12 bits unless the array is signed)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SOP_CLASS
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    ds.Rows, ds.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        ds.NumberOfFrames = len(stored)
    signed = stored.dtype == np.int16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16 if signed else 12, 15 if signed else 11
    ds.PixelRepresentation = int(signed)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Modality = "DX"
    ds.add_new("PixelData", "OW", np.ascontiguousarray(stored).tobytes())
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def made_site(folder: Path, name: str = "st-anna", min_patients: int = 1) -> Site:
    """An empty site."""
    site = init_site(folder, name, policy=Policy(allow_non_private=True, min_patients=min_patients))
    site.dicom.mkdir()
    return site


def noise(seed: int, shape: tuple[int, ...] = (32, 32)) -> np.ndarray:
    """Twelve-bit noise."""
    return np.random.default_rng(seed).integers(0, 4096, shape, dtype=np.uint16)


def add(site: Site, ds: Dataset, patient: str = "P0", **row: object) -> ImageRow:
    """Write a file and index it, as intake does after its gates."""
    entry = write(site, ds, patient, **row)
    with Index(site.index) as index:
        index.add_image(entry)
    return entry


def write(site: Site, ds: Dataset, patient: str, **row: object) -> ImageRow:
    """Write a file; the row that would index it."""
    uid = str(ds.SOPInstanceUID)
    ds.save_as(site.dicom / f"{uid}.dcm", enforce_file_format=True)
    series = str(row.pop("series_uid", f"{uid}.series"))
    return ImageRow(
        sop_uid=uid,
        patient=patient,
        spend_key=f"spend-{patient}",
        study_uid=f"{patient}.study",
        series_uid=series,
        file=f"{uid}.dcm",
        modality=str(ds.Modality),
        rows=int(ds.Rows),
        cols=int(ds.Columns),
        pixel_digest=pixel_digest(ds.pixel_array.astype(np.float32)),
        **row,
    )


def fill(site: Site, patients: int, images: int = 1, positive_every: int = 3, **row: object) -> None:
    """Patients with `images` noise images each; every `positive_every`-th patient is positive."""
    with Index(site.index) as index, index.transaction():
        for number, image in itertools.product(range(patients), range(images)):
            uid = f"2.25.{number + 1}{image:02d}"
            label = int(number % positive_every == 0)
            ds = made_image(noise(number * 100 + image), SOPInstanceUID=uid)
            index.add_image(write(site, ds, f"P{number:03d}", **{"label": label, **row}))


def made_plan(**sections: dict[str, object]) -> Plan:
    """A small binary plan on 16 x 16 radiographs."""
    raw: dict[str, dict[str, object]] = {
        "study": {"name": "test", "question": "is it there?"},
        "task": {"kind": "binary", "classes": ["finding"]},
        "input": {"modalities": ["DX"], "shape": [16, 16]},
        "labels": {"source": "synthetic", "provenance": "made for a test"},
        "model": {"name": "small-cnn"},
    }
    for name, section in sections.items():
        raw[name] = {**raw.get(name, {}), **section}
    return plan_from_dict(raw)
