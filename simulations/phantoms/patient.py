"""Who is imaged: one patient's build and findings, and how they stood, all drawn before anything is rendered."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

Projection = Literal["PA", "AP"]
"""PA: standing, the chest at the detector. AP: sitting or lying, the back at the detector."""

IMAGES_PER_PATIENT: Final = (0.50, 0.25, 0.15, 0.10)
"""Probability of 1, 2, 3 and 4 images; our choice, near the 2.6 images a patient of ChestX-ray14 has."""


@dataclass(frozen=True)
class Grade:
    """How easily a finding is seen: range of fluid thickness and of extent, and how often it occurs."""

    name: str
    thickness_mm: tuple[float, float]
    extent_mm: tuple[float, float]
    count: tuple[int, int]
    share: float


GRADES: Final = (
    Grade("subtle", (20.0, 30.0), (17.0, 23.0), (1, 2), 0.10),
    Grade("moderate", (38.0, 54.0), (22.0, 29.0), (2, 3), 0.30),
    Grade("clear", (50.0, 72.0), (26.0, 34.0), (2, 4), 0.35),
    Grade("extensive", (66.0, 92.0), (30.0, 40.0), (3, 4), 0.25),
)
"""Fluid of 2 to 9 cm in a 17 cm deep lung; extent is the standard deviation of the bell-shaped border.
Ranges are ours: they make human-visible findings of the size of segments (2 to 4 cm) and lobes (5 to 8 cm)."""

GROWN: Final = 18
"""Years from which a patient has an adult's build."""
BREAST_FROM: Final = 13
HEIGHTS_CM: Final = (
    (0, 50.0),
    (1, 75.0),
    (2, 87.0),
    (5, 109.5),
    (10, 138.0),
    (14, 162.0),
    (17, 170.0),
)
"""Median height at an age in years, both sexes together: WHO Child Growth Standards 2006 and Reference 2007, rounded."""


@dataclass(frozen=True)
class Opacity:
    """One consolidation inside a lung, in the lung's own coordinates so that it moves with the breath."""

    side: int
    """-1: the image's left (the patient's right lung); +1: the other."""
    across: float
    """-1 at the mediastinal, +1 at the outer border of the lung."""
    down: float
    """0 at the apex, 1 at the costophrenic angle."""
    thickness_mm: float
    width_mm: float
    height_mm: float
    tilt_rad: float


@dataclass(frozen=True)
class Patient:
    """A body and its findings. Everything that `render` needs and nothing it may change."""

    positive: bool
    sex: Literal["F", "M"]
    age_years: int
    scale: float
    """Height of the thorax relative to a 175 cm man."""
    width: float
    """Width of the thorax relative to its height, 1 = average."""
    depth_mm: float
    """Front to back, in the midline, without fat."""
    fat_mm: float
    """Subcutaneous fat on each side."""
    breast_mm: float
    heart: float
    """Linear size of the heart, 1 = cardiothoracic ratio about 0.46 in PA."""
    mediastinum: float
    bone: float
    """Mineral of the skeleton, 1 = young adult."""
    lung_density: float
    """Grams per cubic centimetre of the inflated lung."""
    grade: str
    """The grade of conspicuity, "" without a finding."""
    opacities: tuple[Opacity, ...]
    texture_seed: int
    """Seed of the vessels and of the fine structure: the same in every image of the patient."""


@dataclass(frozen=True)
class Pose:
    """How the patient stood for one image."""

    shift_mm: tuple[float, float] = (0.0, 0.0)
    roll_rad: float = 0.0
    """In the image plane."""
    turn: float = 0.0
    """About the long axis, as the shift of the heart against the spine, in mm."""
    breath: float = 0.0
    """Deeper (+) or shallower (-) than usual, in mm of diaphragm."""


def images_per_patient(rng: np.random.Generator) -> int:
    """How many images one patient has: 1 to 4."""
    return int(rng.choice(len(IMAGES_PER_PATIENT), p=IMAGES_PER_PATIENT)) + 1


def draw_patient(
    rng: np.random.Generator,
    positive: bool,  # noqa: FBT001 - the label is the subject
    sex: Literal["F", "M"] | None = None,
    age: int | None = None,
) -> Patient:
    """Draw one patient; the build does not depend on `positive`, so that only the finding tells.

    Args:
        rng: drawn from equally often whatever is given.
        positive: whether there is a finding.
        sex: drawn when None.
        age: completed years; an adult's is drawn when None.
    """
    drawn = bool(rng.random() < 0.52), int(np.clip(rng.normal(60, 17), 18, 97))
    male = drawn[0] if sex is None else sex == "M"
    age = drawn[1] if age is None else age
    fat = float(np.clip(rng.gamma(5.0, 3.4), 5, 42))
    grade = GRADES[int(rng.choice(len(GRADES), p=[g.share for g in GRADES]))]
    opacities = draw_opacities(rng, grade)
    adult = Patient(
        positive=positive,
        sex="M" if male else "F",
        age_years=age,
        scale=float(np.clip(rng.normal(1.0 if male else 0.93, 0.045), 0.80, 1.12)),
        width=float(np.clip(rng.normal(1.0, 0.045), 0.88, 1.12)),
        depth_mm=float(np.clip(rng.normal(222 if male else 205, 16), 165, 270)),
        fat_mm=fat,
        breast_mm=0.0 if male else float(rng.uniform(10, 26) + 0.4 * fat),
        heart=float(np.clip(rng.normal(0.97 + 0.0016 * (age - 50), 0.075), 0.78, 1.3)),
        mediastinum=float(np.clip(rng.normal(1.0 + 0.002 * (age - 50), 0.08), 0.8, 1.3)),
        bone=float(np.clip(rng.normal(1.12 - 0.005 * (age - 40), 0.1), 0.6, 1.3)),
        lung_density=float(np.clip(rng.normal(0.26, 0.025), 0.18, 0.34)),
        grade=grade.name if positive else "",
        opacities=opacities if positive else (),
        texture_seed=int(rng.integers(2**63)),
    )
    return adult if age >= GROWN else _child(adult)


def _child(adult: Patient) -> Patient:
    """The same build at a child's size: lengths follow the height, the heart is larger for the chest, fat less."""
    years, heights = np.array(HEIGHTS_CM).T
    height = float(np.interp(adult.age_years, years, heights)) / HEIGHTS_CM[-1][1]
    small = tuple(
        replace(
            one,
            thickness_mm=one.thickness_mm * height,
            width_mm=one.width_mm * height,
            height_mm=one.height_mm * height,
        )
        for one in adult.opacities
    )
    return replace(
        adult,
        scale=adult.scale * height,
        depth_mm=adult.depth_mm * height,
        fat_mm=adult.fat_mm * height * 0.7,
        breast_mm=adult.breast_mm if adult.age_years >= BREAST_FROM else 0.0,
        heart=adult.heart * (1 + 0.2 * max(0.0, 1 - adult.age_years / 6)),
        opacities=small,
    )


def draw_opacities(rng: np.random.Generator, grade: Grade) -> tuple[Opacity, ...]:
    """Draw the consolidations of one grade; the lower zones are met more often, as in pneumonia."""
    count = int(rng.integers(grade.count[0], grade.count[1] + 1))
    first = int(rng.choice([-1, 1]))
    found = []
    for index in range(count):
        extent = float(rng.uniform(*grade.extent_mm))
        ratio = float(rng.uniform(0.7, 1.4))
        found.append(
            Opacity(
                side=first if index == 0 or rng.random() < 0.5 else -first,
                across=float(rng.uniform(-0.35, 0.55)),
                down=float(0.3 + 0.5 * rng.beta(2.4, 1.3)),
                thickness_mm=float(rng.uniform(*grade.thickness_mm)),
                width_mm=extent * math.sqrt(ratio),
                height_mm=extent / math.sqrt(ratio),
                tilt_rad=float(rng.uniform(-0.8, 0.8)),
            )
        )
    return tuple(found)


def draw_pose(rng: np.random.Generator, projection: Projection) -> Pose:
    """Draw how the patient stood; bedside images (AP) are straight and centred less often."""
    loose = 1.6 if projection == "AP" else 1.0
    return Pose(
        shift_mm=(float(rng.normal(0, 4.0 * loose)), float(rng.normal(0, 5.0 * loose))),
        roll_rad=float(rng.normal(0, 0.016 * loose)),
        turn=float(rng.normal(0, 3.0 * loose)),
        breath=float(rng.normal(0, 5.0 * loose)),
    )
