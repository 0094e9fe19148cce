"""How often the second scan holds back an image in which nothing is left: names that are words, makers, numbers.

Made files of X-ray and CT, each of its own patient, with nothing that names anybody where the profile keeps a value. They
take the way of every file through a worker's bench. What it refuses is refused wrongly; what it leaves out of an image
because the patient bears its name is counted beside.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian
from rich.table import Table

from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings, OwnMaker
from client.intake.bench import Bench
from client.intake.outcome import Task
from client.intake.parse import quiet
from client.intake.pool import Setup
from common.cli import grid


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STRATA: Final[dict[str, tuple[str, ...]]] = {
    "ordinary words": _names(
        "Young Grey Brown Long Small Rose Forest May April June Day King Bishop Page Bell Stone Field Frame"
    ),
    "words of the file": _names(
        "Chest Standard Head Bone Lung Soft Detail Edge Axial Original Primary Other Patient Profile Option Basic "
        "Dates Modified Removed Yes Linear Identity Abdomen Hand Brain"
    ),
    "makers and models": _names(
        "Siemens Phillips Philips Toshiba Canon Kodak Fuji Agfa Hologic Sensation Brilliance Discovery Optima "
        "Definition Ingenuity Medical Systems Imaging Healthcare General Electric"
    ),
    "short": _names("Wu Li Ng O Xu Le An Chen Kim Lee Ho Yu Ma Fu Day Ray Roy"),
    "usual": _names("Abendroth Zollinger Quackenbush Federspiel Ostermann Brinkmeyer Lindqvist Haverkamp"),
}
"""Family names; the given name is drawn from all of them."""
DEVICES: Final = (
    ("SIEMENS", "Sensation 64"),
    ("Siemens Healthineers", "SOMATOM Definition AS 128"),
    ("Philips Medical Systems", "Brilliance iCT 256"),
    ("GE MEDICAL SYSTEMS", "Discovery CT750 HD"),
    ("GE Healthcare", "Optima XR220"),
    ("TOSHIBA", "Aquilion ONE"),
    ("Canon Inc.", "CXDI-710C"),
    ("FUJIFILM Corporation", "DR-ID 1200"),
    ("Agfa", "DX-D 300"),
    ("Carestream Health", "DRX-1"),
    ("Aster Imaging", "DR-1"),
)
KERNELS: Final = ("STANDARD", "SOFT", "BONE", "LUNG", "B30f", "B60f", "FC07", "C")
PARTS: Final = ("CHEST", "ABDOMEN", "PELVIS", "KNEE", "HAND", "SHOULDER")
SIDE: Final = 64
KEPT: Final = ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "ConvolutionKernel")
_CLASSES: Final = {"CR": "1.2.840.10008.5.1.4.1.1.1", "CT": "1.2.840.10008.5.1.4.1.1.2"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Stratum:
    """One kind of names and numbers."""

    name: str
    files: int
    held: int
    """Refused by the second scan."""
    other: int
    """Refused for another reason; none is expected."""
    left_out: int
    """Files that lost a maker, model, body part or kernel because it bears the patient's name."""

    @property
    def upper(self) -> float:
        """Upper end of the 95% interval of the share held back (Wilson)."""
        return wilson_upper(self.held, self.files)


@dataclass(frozen=True)
class FalseQuarantine:
    """All strata."""

    seed: int
    text: bool
    """Whether pixels were read too."""
    strata: tuple[Stratum, ...]

    def table(self) -> Table:
        """What people read."""
        total = Stratum(
            "all", *(sum(getattr(s, f) for s in self.strata) for f in ("files", "held", "other", "left_out"))
        )
        rows = [
            (
                one.name,
                one.files,
                one.held,
                f"{100 * one.held / one.files:.2f}%",
                f"{100 * one.upper:.2f}%",
                one.other,
                one.left_out,
            )
            for one in (*self.strata, total)
        ]
        heads = (
            "names and numbers",
            "files",
            "held back",
            "share",
            "at most (95%)",
            "other refusals",
            "a value left out",
        )
        return grid("Clean files held back by the second scan", heads, rows)


def wilson_upper(hits: int, count: int, z: float = 1.96) -> float:
    """Upper end of Wilson's interval of a share."""
    share = hits / count
    centre = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre + reach) / (1 + z * z / count)


def false_quarantine(
    files: int, seed: int, *, text: bool, progress: Progress | None = None
) -> FalseQuarantine:
    """Take clean files in and count what is held back.

    Args:
        files: of all strata together.
        seed: of names, numbers, dates and pixels.
        text: whether the pixels are searched for text as well.
        progress: called with files done and files in all.
    """
    rng = np.random.default_rng(seed)
    own = (OwnMaker("Aster Imaging", ("DR-1",)),)
    settings = DeidSettings(burned_in_text="find" if text else "ignore", makers=own)
    hello = Setup(Pseudonyms(rng.bytes(32), rng.bytes(32)), deid=settings).hello()
    bench = Bench.of(json.loads(hello))
    each = files // len(STRATA)
    counts: list[Stratum] = []
    with tempfile.TemporaryDirectory(prefix="consilium-proof-") as scratch:
        for place, (name, families) in enumerate(STRATA.items()):
            found: Counter[str] = Counter()
            for number, ds in enumerate(_patients(rng, families, each)):
                found[_taken(bench, ds, Path(scratch))] += 1
                if progress is not None:
                    progress(place * each + number + 1, each * len(STRATA))
            known = ("held", "other", "left out", "whole")
            held, other, left_out, _ = (found[kind] for kind in known)
            counts.append(Stratum(name, each, held, other, left_out))
    return FalseQuarantine(seed, text, tuple(counts))


def _taken(bench: Bench, ds: Dataset, scratch: Path) -> str:
    path = scratch / "in.dcm"
    buffer = io.BytesIO()
    with quiet():
        dcmwrite(buffer, ds, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())
    outcome = bench.process(Task(0, str(path), "out", str(scratch)))
    if not outcome.accepted or outcome.row is None:
        return "held" if outcome.code == "deid-verify" else "other"
    kept = sum(bool(ds.get(keyword)) for keyword in KEPT)
    return "whole" if _kept(scratch / "out.dcm") == kept else "left out"


def _kept(path: Path) -> int:
    ds = dcmread(path, stop_before_pixels=True)
    return sum(bool(ds.get(keyword)) for keyword in KEPT)


def _patients(rng: np.random.Generator, families: Sequence[str], count: int) -> Iterator[Dataset]:
    """Files of so many patients with these family names."""
    given = [name for names in STRATA.values() for name in names]
    for number in range(count):
        ds = _image(rng, number)
        ds.PatientName = f"{rng.choice(families)}^{rng.choice(given)}"
        ds.ReferringPhysicianName = f"{rng.choice(given)}^{rng.choice(given)}"
        ds.OperatorsName = f"{rng.choice(given)}^{rng.choice(given)}"
        ds.PatientID, ds.AccessionNumber, ds.StudyID = (_number(rng, low) for low in (3, 4, 3))
        ds.DeviceSerialNumber = _number(rng, 4)
        if rng.random() < 0.3:
            ds.PatientComments = f"compare {_day(rng)}, {rng.choice(given)}"
        yield ds


def _image(rng: np.random.Generator, number: int) -> Dataset:
    ds = Dataset()
    ds.Modality = str(rng.choice(("CR", "CT")))
    ds.SOPClassUID = _CLASSES[ds.Modality]
    root = f"1.2.{rng.integers(1, 999)}.{rng.integers(10**6, 10**9)}.{number + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = root, root + ".1", root + ".1.1"
    ds.ImageType = ["ORIGINAL", "PRIMARY", *(["AXIAL"] if ds.Modality == "CT" else [])]
    ds.Manufacturer, ds.ManufacturerModelName = DEVICES[rng.integers(len(DEVICES))]
    ds.BodyPartExamined, ds.PatientSex = str(rng.choice(PARTS)), str(rng.choice(("M", "F")))
    ds.InstitutionName = f"Hospital {rng.integers(1, 40)}"
    ds.StudyDescription = f"{ds.BodyPartExamined.title()} {'nativ' if ds.Modality == 'CT' else 'pa'}"
    ds.PatientBirthDate, ds.StudyDate = _day(rng, 1920, 2010), _day(rng, 2010, 2025)
    ds.AcquisitionDate, ds.StudyTime = ds.StudyDate, "101112"
    ds.KVP, ds.Exposure = str(rng.integers(60, 141)), str(rng.integers(1, 500))
    ds.PixelSpacing = [f"{rng.uniform(0.1, 1):.6f}"] * 2
    if ds.Modality == "CT":
        ds.ConvolutionKernel, ds.SliceThickness = str(rng.choice(KERNELS)), "5.000000"
        ds.ImagePositionPatient = [f"{v:.6f}" for v in rng.uniform(-300, 300, 3)]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    _fill(ds, rng)
    return ds


def _fill(ds: Dataset, rng: np.random.Generator) -> None:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    smooth: npt.NDArray[np.float64] = 900 + 1800 * np.exp(-3 * x**2) + 300 * np.sin(6 * y)
    pixels = np.clip(smooth + rng.normal(0, 25, (SIDE, SIDE)), 0, 4095).astype("<u2")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.add_new(0x7FE00010, "OW", pixels.tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _number(rng: np.random.Generator, least: int) -> str:
    """Digits, `least` to 10 of them."""
    digits = int(rng.integers(least, 11))
    return str(rng.integers(10 ** (digits - 1), 10**digits))


def _day(rng: np.random.Generator, first: int = 2008, last: int = 2025) -> str:
    return f"{rng.integers(first, last)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
