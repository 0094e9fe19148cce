"""Small identified DICOM files for the tests of intake: an ordinary chest image, and ways to spoil it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from client.deid.settings import OwnMaker
from client.site import Site, init_site

Change = Callable[[Dataset], None]
MACHINES = (OwnMaker("Aster Imaging", ("DR-1", "Mobile DR-1", "E-1")),)
"""What the made images say of their scanner; no real maker's."""
CR_CLASS = "1.2.840.10008.5.1.4.1.1.1"


def chest(seed: int = 0, size: int = 96) -> np.ndarray:
    """A picture with bright and dark parts and a little noise: [size, size] uint16 in 12 bits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    smooth = 900 + 1800 * np.exp(-3 * x**2) + 400 * np.sin(9 * y + seed)
    lungs = -700.0 * (((np.abs(x) - 0.45) ** 2 / 0.08 + y**2 / 0.5) < 1)
    belly = 1000.0 / (1 + np.exp(-12 * (y - 0.6)))  # so that it stands upright
    return np.clip(smooth + lungs + belly + rng.normal(0, 25, (size, size)), 0, 4095).astype("<u2")


def image(number: int = 0, patient: str | None = None, **attributes: object) -> Dataset:
    """An identified CR image of its own study."""
    ds = Dataset()
    ds.PatientName = f"Abendroth{number}^Wilhelmina"
    ds.PatientID = patient or f"HOSP-77{number:05d}"
    ds.PatientBirthDate, ds.PatientSex = "19550417", "F"
    ds.StudyDate, ds.StudyTime = "20210312", "101112"
    ds.AccessionNumber = f"ACC{number:06d}"
    ds.ReferringPhysicianName = "Quackenbush^Ottilie"
    ds.InstitutionName, ds.StationName = "Sankt Florian Krankenhaus", "RAUM7XR"
    ds.StudyInstanceUID = f"1.2.276.0.7230010.3.{number + 1}"
    ds.SeriesInstanceUID = ds.StudyInstanceUID + ".1"
    ds.SOPInstanceUID = ds.StudyInstanceUID + ".1.1"
    ds.SOPClassUID, ds.Modality = CR_CLASS, "CR"
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Aster Imaging", "DR-1", "SN998877"
    ds.ViewPosition, ds.BodyPartExamined = "PA", "CHEST"
    set_pixels(ds, chest(number))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def set_pixels(ds: Dataset, pixels: np.ndarray, stored: int = 12) -> None:
    """Put native 16-bit pixels in."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, stored, stored - 1, 0
    ds.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())


def to_bytes(ds: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bytes = b"\0" * 128) -> bytes:
    """The file as a hospital's archive would hold it."""
    meta = getattr(ds, "file_meta", None) or FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    ds.file_meta = meta
    ds.preamble = preamble
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def export(folder: Path, count: int = 4, start: int = 0) -> Path:
    """A folder of ordinary images of as many patients."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"Abendroth_{number}.dcm").write_bytes(to_bytes(image(number)))
    return folder


def label_table(path: Path, lines: list[str], head: str = "accession,label,source,version") -> Path:
    """A label table of these lines."""
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def new_site(folder: Path) -> Site:
    """A fresh hospital."""
    return init_site(folder, "st-anna", makers=MACHINES)


def when_read(pipe: Path, act: Callable[[], object]) -> None:
    """Act once a worker has opened this named pipe and waits in it; whoever waits for seconds may come too early."""

    def wait() -> None:
        with pipe.open("wb"):  # which the kernel lets us do when somebody reads
            act()

    threading.Thread(target=wait, daemon=True).start()


def state_of(site: Site) -> dict[str, bytes]:
    """Every byte of index and store, to see that nothing changed."""
    held = [site.index, *site.dicom.rglob("*")]
    return {str(path): path.read_bytes() for path in held if path.is_file()}
