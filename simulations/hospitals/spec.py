"""What a virtual hospital is, what was put into its archive, and the default federation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from common.errors import DataError
from simulations.hospitals.machines import MODELS
from simulations.hospitals.population import Population, check
from simulations.phantoms import Projection
from simulations.scanners import WEAK

Syntax = Literal["explicit", "implicit", "jpeg2000", "jpegls", "rle"]

LEAST_PATIENTS: Final = 8
"""Of one hospital: two of the rarer class."""


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
    population: Population | None = None
    """Draws who comes and who is ill; prevalence, scanners and ap above then only describe it."""
    away: tuple[int, ...] = ()
    """Rounds in which it does not answer."""

    def __post_init__(self) -> None:
        names = {name for weights in self.scanners.values() for name in weights}
        if unknown := names - set(MODELS):
            raise DataError(
                self.name, f"unknown scanner {', '.join(sorted(unknown))}", f"Use one of {', '.join(MODELS)}"
            )
        if not 0 < self.prevalence < 1:
            raise DataError(self.name, "nobody or everybody is ill", "Give a prevalence between 0 and 1")
        if set(self.scanners) != {0, 1}:
            raise DataError(self.name, "needs scanner weights for labels 0 and 1", "Give both")
        if max(self.burned_in, self.broken, self.duplicated) > self.patients:
            raise DataError(
                self.name, "a trap needs a patient of its own", "Ask for fewer traps or more patients"
            )
        if self.population is not None:
            check(self.name, self.population)

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
    told: int | None = None
    """What the label table says of the patient; None: it says nothing."""
    reader: str = ""
    split: str = ""
    """As the label table names it; empty: the client's choice."""
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


AP_SHARE: Final = {
    "aster-dr": 0.30,
    "borealis-cr": 0.35,
    "cygnus-dr": 0.30,
    WEAK: 0.65,
    "gadolinium-bedside": 0.65,
}
"""Bedside units take most chests AP; the others take those who cannot stand."""
AP_SPREAD: Final = 0.05
"""Half the range in which a hospital's habit differs from that share."""

PATIENTS: Final = 270
"""Of one default hospital."""


def _one(name: str) -> dict[int, dict[str, float]]:
    return {0: {name: 1.0}, 1: {name: 1.0}}


_DEFAULT: Final = (
    HospitalSpec("alder", "Alder General Hospital", PATIENTS, 0.74, _one("aster-dr"), AP_SHARE, burned_in=14),
    HospitalSpec("birch", "Birch Teaching Hospital", PATIENTS, 0.72, _one(WEAK), AP_SHARE, suffix=""),
    HospitalSpec(
        "cedar",
        "Cedar Valley Clinic",
        PATIENTS,
        0.26,
        _one("borealis-cr"),
        AP_SHARE,
        monochrome1=True,
        duplicated=6,
    ),
    HospitalSpec(
        "dogwood", "Dogwood Medical Centre", PATIENTS, 0.26, _one("cygnus-dr"), AP_SHARE, syntax="jpegls"
    ),
    HospitalSpec(
        "elm",
        "Elm Park Infirmary",
        PATIENTS,
        0.27,
        {0: {"borealis-cr": 0.6, WEAK: 0.4}, 1: {"borealis-cr": 0.5, WEAK: 0.5}},
        AP_SHARE,
        broken=16,
        label_source="report",
    ),
    HospitalSpec(
        "fir",
        "Fir Lake Hospital",
        PATIENTS,
        0.73,
        {0: {"cygnus-dr": 0.5, "aster-dr": 0.5}, 1: {"cygnus-dr": 0.25, "aster-dr": 0.75}},
        AP_SHARE,
        syntax="implicit",
    ),
)
"""High prevalence on aster and dorado (mobile units see the sick), low on borealis and cygnus: 3 to 1.
dorado serves two hospitals of opposite prevalence, and cygnus two more: the site is not the scanner."""


def default_federation(n_hospitals: int = 6, n_patients: int = 1620, seed: int = 0) -> list[HospitalSpec]:
    """Hospitals over four scanners, prevalence and scanner confounded about three to one.

    More than six hospitals repeat the pattern with a number behind the name; patients are shared evenly.
    The seed draws how often each hospital takes a chest AP; everything else is fixed.

    Raises:
        DataError: when a hospital would have fewer than 8 patients.
    """
    if n_hospitals < 1 or n_patients < LEAST_PATIENTS * n_hospitals:
        raise DataError(
            "virtual federation",
            f"needs a hospital, and {LEAST_PATIENTS} patients in each",
            "Ask for fewer hospitals or more patients",
        )
    share, rest = divmod(n_patients, n_hospitals)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    return [_hospital(index, share + (index < rest), rng) for index in range(n_hospitals)]


def _hospital(index: int, patients: int, rng: np.random.Generator) -> HospitalSpec:
    again, which = divmod(index, len(_DEFAULT))
    model = _DEFAULT[which]
    habit = float(rng.uniform(-AP_SPREAD, AP_SPREAD))
    return replace(
        model,
        name=f"{model.name}-{again + 1}" if again else model.name,
        institution=f"{model.institution} {again + 1}" if again else model.institution,
        patients=patients,
        ap={scanner: share + habit for scanner, share in model.ap.items()},
        burned_in=min(model.burned_in, patients // 4),
        broken=min(model.broken, patients // 4),
        duplicated=min(model.duplicated, patients // 4),
    )
