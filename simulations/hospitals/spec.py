"""What a virtual hospital is, what was put into its archive, and the default federation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from common.errors import DataError
from simulations.phantoms import Projection
from simulations.scanners import SCANNERS, WEAK

Syntax = Literal["explicit", "implicit", "jpeg2000", "jpegls", "rle"]

LEAST_OF_EACH_CLASS: Final = 60
"""Patients of either class a default hospital has at least: 35% of them are the 20 a test part needs."""


@dataclass(frozen=True)
class HospitalSpec:
    """One virtual hospital. Weights need not sum to one."""

    name: str
    institution: str
    patients: int
    prevalence: float
    """Share of patients with the finding; met exactly, to the rounding."""
    scanners: Mapping[int, Mapping[str, float]]
    """For each label, the weight of each scanner by name: how patients and machines come together."""
    ap: Mapping[str, float]
    """For each scanner by name, the share of studies taken AP."""
    monochrome1: bool = False
    syntax: Syntax = "explicit"
    burned_in: int = 0
    """Extra images with the patient's name in the pixels, and marked so."""
    broken: int = 0
    """Extra files that cannot be read: empty, truncated, cut at the head, or not DICOM."""
    duplicated: int = 0
    """Files that were sent twice: the same bytes in another folder."""
    suffix: str = ".dcm"
    label_source: str = "radiologist"

    def __post_init__(self) -> None:
        names = {name for weights in self.scanners.values() for name in weights}
        if unknown := names - set(SCANNERS):
            raise DataError(self.name, f"unknown scanner {sorted(unknown)}", "Use a name in SCANNERS")
        if set(self.scanners) != {0, 1} or not 0 < self.prevalence < 1:
            raise DataError(
                self.name, "needs scanner weights for labels 0 and 1 and a prevalence between", "Give both"
            )
        if max(self.burned_in, self.broken, self.duplicated) > self.patients:
            raise DataError(
                self.name, "a trap needs a patient of its own", "Ask for fewer traps or more patients"
            )

    @property
    def positives(self) -> int:
        """Number of patients with the finding."""
        return round(self.patients * self.prevalence)

    @property
    def key(self) -> int:
        """A number that stands for the name in seeds: a hospital's images do not depend on the others."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")


@dataclass(frozen=True)
class ImageTruth:
    """What is really in one file. For simulations only; the client never sees it."""

    path: str
    """Relative to the hospital's folder."""
    patient: str
    accession: str
    sop_uid: str
    label: int
    scanner: str
    projection: Projection
    grade: str
    opacity_pixels: int
    """Pixels of the finding in the image."""
    trap: str = ""
    """"", "burned-in", "duplicate", "empty", "truncated", "header" or "not-dicom"."""


@dataclass(frozen=True)
class Truth:
    """Everything that was written for one hospital, in order of patient."""

    hospital: str
    seed: int
    images: tuple[ImageTruth, ...] = field(repr=False)

    @property
    def readable(self) -> tuple[ImageTruth, ...]:
        """The images without a trap: what a perfect intake would accept, each once."""
        return tuple(image for image in self.images if not image.trap)

    def patients(self, label: int | None = None) -> int:
        """Number of patients, all or of one label."""
        return len({i.patient for i in self.images if label is None or i.label == label})


_ALONE: Final = 1.0

_DEFAULT: Final = (
    # name, institution, prevalence, weights without and with the finding, traps
    ("alder", "Alder General Hospital", 0.74, {"aster-dr": 1.0}, {"aster-dr": 1.0}, {"burned_in": 14}),
    ("birch", "Birch Teaching Hospital", 0.72, {WEAK: 1.0}, {WEAK: 1.0}, {"suffix": ""}),
    (
        "cedar",
        "Cedar Valley Clinic",
        0.26,
        {"borealis-cr": 1.0},
        {"borealis-cr": 1.0},
        {"monochrome1": True, "duplicated": 6},
    ),
    ("dogwood", "Dogwood Medical Centre", 0.26, {"cygnus-dr": 1.0}, {"cygnus-dr": 1.0}, {"syntax": "jpegls"}),
    (
        "elm",
        "Elm Park Infirmary",
        0.27,
        {"borealis-cr": 0.65, WEAK: 0.35},
        {"borealis-cr": 0.5, WEAK: 0.5},
        {"broken": 16, "label_source": "report"},
    ),
    (
        "fir",
        "Fir Lake Hospital",
        0.73,
        {"cygnus-dr": 0.5, "aster-dr": 0.5},
        {"cygnus-dr": 0.25, "aster-dr": 0.75},
        {"syntax": "implicit"},
    ),
)
"""High prevalence on aster and dorado (mobile units see the sick), low on borealis and cygnus: 3 to 1.
dorado serves two hospitals of opposite prevalence, and so do aster/cygnus with fir: site is not scanner."""

AP_SHARE: Final = {"aster-dr": 0.30, "borealis-cr": 0.35, "cygnus-dr": 0.30, WEAK: 0.65}
"""Bedside units take most chests AP; the others take those who cannot stand."""


def default_federation(n_hospitals: int = 6, n_patients: int = 1620) -> list[HospitalSpec]:
    """Hospitals over four scanners, prevalence and scanner confounded about three to one.

    More than six hospitals repeat the pattern with a number behind the name; patients are shared evenly.

    Raises:
        DataError: when a hospital would have too few patients of one class for its test part.
    """
    if n_hospitals < 1 or n_patients // max(n_hospitals, 1) < 8:
        raise DataError("default federation", "needs a hospital and 8 patients in each", "Ask for more")
    share, rest = divmod(n_patients, n_hospitals)
    return [_hospital(index, share + (index < rest)) for index in range(n_hospitals)]


def _hospital(index: int, patients: int) -> HospitalSpec:
    again, which = divmod(index, len(_DEFAULT))
    name, institution, prevalence, without, having, extras = _DEFAULT[which]
    traps = {
        key: min(value, patients // 4) if key in ("burned_in", "broken", "duplicated") else value
        for key, value in extras.items()
    }
    return HospitalSpec(
        name=f"{name}-{again + 1}" if again else name,
        institution=f"{institution} {again + 1}" if again else institution,
        patients=patients,
        prevalence=prevalence,
        scanners={0: dict(without), 1: dict(having)},
        ap=AP_SHARE,
        **traps,
    )
