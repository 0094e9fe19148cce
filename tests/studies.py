"""Identified studies for tests of the archive: any number, each instance with its own pixels and UIDs."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.client.intake_files import chest, image, set_pixels, to_bytes

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def dataset(number: int, instance: int = 0, size: int = 96, **attributes: object) -> Dataset:
    """Instance `instance` of study `number`; attributes replace those of `intake_files.image`."""
    ds = image(number, **attributes)
    ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{instance + 1}"
    ds.SeriesNumber, ds.InstanceNumber = 1, instance + 1
    set_pixels(ds, picture(number, instance, size))
    return ds


def picture(number: int, instance: int, size: int = 96) -> np.ndarray:
    """One chest that every check of quality lets pass, with noise of its own: [size, size] in 12 bits."""
    noise = np.random.default_rng([number, instance]).normal(0, 25, (size, size))
    return np.clip(chest(0, size) + noise, 0, 4095).astype("<u2")


def study(number: int, instances: int = 1, size: int = 96, **attributes: object) -> list[bytes]:
    """The files of one radiograph study."""
    return [to_bytes(dataset(number, n, size, **attributes)) for n in range(instances)]


def ct_study(number: int, slices: int, size: int = 512, **attributes: object) -> list[bytes]:
    """The files of one CT series; half a megabyte a slice at the usual size.

    Attributes may also be StudyDate, BodyPartExamined, AccessionNumber and the like.
    """
    return [to_bytes(ct_slice(number, n, size, **attributes), ExplicitVRLittleEndian) for n in range(slices)]


def ct_slice(number: int, position: int, size: int = 512, **attributes: object) -> Dataset:
    """One slice; its pixels are one picture with its own noise, so that no two are equal."""
    given = {"Modality": "CT", "SOPClassUID": CT_CLASS, "BodyPartExamined": "CHEST", **attributes}
    ds = image(number, **given)
    del ds.ViewPosition
    ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{position + 1}"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.InstanceNumber = 1, position + 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, float(position)], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    rng = np.random.default_rng([number, position])
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = 1000.0 * (x**2 / 0.8 + y**2 / 0.5 < 1) + 300 * np.sin(5 * x + 0.1 * position)
    set_pixels(ds, np.clip(body + rng.normal(100, 20, (size, size)), 0, 4095).astype("<u2"))
    return ds
