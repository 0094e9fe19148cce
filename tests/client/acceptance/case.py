"""One kind of nasty file: its canaries, the honest image around them, and what must become of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.client.intake_files import chest, set_pixels, to_bytes

CLEAN: Final = "taken in"
REVIEW: Final = "waits for a person"
BLANKED: Final = "blanked, or waits for a person"
STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
WANTED: Final = (
    "Manufacturer",
    "ManufacturerModelName",
    "PatientSex",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "ViewPosition",
    "KVP",
    "Exposure",
    "ExposureTime",
    "XRayTubeCurrent",
)
"""What a study of scanner bias cannot do without, beside the age; compared with the source, value by value."""
_FIRST: Final = [
    "ba",
    "be",
    "bi",
    "bo",
    "bu",
    "da",
    "de",
    "di",
    "do",
    "du",
    "fa",
    "fe",
    "fi",
    "fo",
    "fu",
    "ga",
]
_SECOND: Final = [
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "mu",
    "na",
    "ne",
    "ni",
    "no",
    "nu",
    "ra",
]


@dataclass(frozen=True)
class Canary:
    """Strings that stand in one file only, in one place of it."""

    number: int

    @property
    def word(self) -> str:
        """A name of letters that no dictionary holds."""
        return "Kanxu" + self._syllables

    @property
    def family(self) -> str:
        """The patient's own family name: another word, in PatientName and nowhere else."""
        return "Huqzo" + self._syllables

    @property
    def given(self) -> str:
        """The patient's own given name."""
        return "Yvwej" + self._syllables

    @property
    def digits(self) -> str:
        """Ten digits like a telephone number."""
        return f"69{(self.number * 7_368_787 + 1_234_567) % 10**8:08d}"

    @property
    def patient(self) -> str:
        """The hospital's own number of the patient."""
        return f"MRN{(self.number * 6_700_417 + 7_654_321) % 10**8:08d}"

    @property
    def accession(self) -> str:
        """The number of the order."""
        return f"ORD{(self.number * 479_001_599 + 24_681_357) % 10**9:09d}"

    @property
    def born(self) -> date:
        """A day before 1950, to which no shift of a study's date leads."""
        return date(1931, 6, 27) + timedelta(days=31 * self.number)

    @property
    def studied(self) -> date:
        """A day after 2040, to which no shift leads either."""
        return date(2041, 3, 12) + timedelta(days=9 * self.number)

    @property
    def uid(self) -> str:
        """The root of the file's own UIDs."""
        return f"1.2.276.0.7230010.3.4.{self.number}.{self.digits}"

    @property
    def _syllables(self) -> str:
        return _FIRST[self.number >> 4] + _SECOND[self.number & 15]

    def texts(self) -> tuple[str, ...]:
        """Every string whose appearance in anything that is kept is a leak."""
        own = (self.word, self.family, self.given, self.digits, self.patient, self.patient[3:])
        return (
            *own,
            self.accession,
            self.accession[3:],
            self.uid,
            *written(self.born),
            *written(self.studied),
        )


def written(day: date) -> tuple[str, ...]:
    """A day as people and machines write it."""
    styles = (
        "%Y%m%d",
        "%Y-%m-%d",
        "%d.%m.%Y",
        "%m/%d/%Y",
        "%d/%m/%Y",
        "%d%m%Y",
        "%d %B %Y",
        "%d-%b-%Y",
        "%B %d, %Y",
    )
    return tuple(day.strftime(style) for style in styles)


Make = Callable[[Canary], bytes]


@dataclass(frozen=True)
class Case:
    """A row of the table and the file that goes with it."""

    kind: str
    place: str
    """Where the canary sits, or what the trap is, in words for the table."""
    make: Make
    outcome: str = CLEAN
    """`taken in`, `waits for a person`, either (`BLANKED`), or the code by which the file is refused."""
    lost: tuple[str, ...] = ()
    """Wanted attributes that the trap itself spoils, so that they must go."""
    name: str = "{number:03d}.dcm"
    """Of the file; may hold the canary too."""
    labelled: bool = True
    """Whether the label table has a line for it: a file that tells no accession can have none."""
    check: Callable[[Dataset, Dataset], None] | None = None
    """A further law about the source and what was kept of it."""


def base(canary: Canary, *, pixels: np.ndarray | None = None, **attributes: object) -> Dataset:
    """An honest chest radiograph of this file's own patient, with everything a study wants of it."""
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = STORAGE + "1", "CR"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.PatientName, ds.PatientID = f"{canary.family}^{canary.given}", canary.patient
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = f"{canary.born:%Y%m%d}", "F", "064Y"
    ds.StudyDate = f"{canary.studied:%Y%m%d}"
    ds.AccessionNumber = canary.accession
    ds.StudyInstanceUID = canary.uid + ".1"
    ds.SeriesInstanceUID, ds.SOPInstanceUID = canary.uid + ".2", canary.uid + ".3"
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Aster Imaging", "DR-1", "SN4471"
    ds.ViewPosition, ds.BodyPartExamined = "PA", "CHEST"
    ds.PixelSpacing, ds.ImagerPixelSpacing = ["0.2", "0.2"], ["0.21", "0.21"]
    ds.KVP, ds.Exposure, ds.ExposureTime, ds.XRayTubeCurrent = "117.5", "4", "21", "187"
    set_pixels(ds, chest(canary.number) if pixels is None else pixels)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def attributes(**forms: object) -> Make:
    """A file with these attributes; `{word}`, `{digits}` and `{born}` in a text stand for the canaries."""

    def make(canary: Canary) -> bytes:
        filled = {keyword: fill(form, canary) for keyword, form in forms.items()}
        return to_bytes(base(canary, **filled))

    return make


def fill(form: object, canary: Canary) -> object:
    """A text, or a list of texts, with the canaries in."""
    if isinstance(form, list):
        return [fill(one, canary) for one in form]
    if not isinstance(form, str):
        return form
    own = {
        name: getattr(canary, name)
        for name in ("word", "digits", "born", "studied", "family", "given", "patient")
    }
    return form.format(**own)


def changed(change: Callable[[Dataset, Canary], object]) -> Make:
    """The honest image after a change."""

    def make(canary: Canary) -> bytes:
        ds = base(canary)
        change(ds, canary)
        return to_bytes(ds)

    return make


def element(tag: int, vr: str, form: str | Callable[[Canary], object]) -> Make:
    """The honest image with one element more."""

    def change(ds: Dataset, canary: Canary) -> None:
        ds.add_new(tag, vr, fill(form, canary) if isinstance(form, str) else form(canary))

    return changed(change)


def as_read(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """The same image as a file holds it, so that codecs can work on it."""
    return dcmread(io.BytesIO(to_bytes(ds, syntax)))
