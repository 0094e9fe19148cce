"""A synthetic head for magnetic resonance: one axial slice as shares of tissues, drawn and then rendered.

Shares, not labels: a pixel at a border holds some of both sides, so that a signal equation sees partial volume.
Lengths are millimetres; x grows to the image's right (the patient's left), y downwards (to the back).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.phantoms.texture import mottle

FloatMap = npt.NDArray[np.float32]

TISSUES: Final = ("fat", "bone", "csf", "grey", "white", "lesion")
"""Order of the first axis of `Head.shares`; what is left to one is air."""
FIELD_MM: Final = 240.0
FOLDS: Final = 12
"""Half the number of sulci around a slice at the level of the ventricles; our choice, by eye."""


@dataclass(frozen=True)
class HeadPatient:
    """Everything that `render_head` needs."""

    positive: bool
    age_years: int
    half_width_mm: float
    half_length_mm: float
    scalp_mm: float
    skull_mm: float
    cortex_mm: float
    gap_mm: float
    """Cerebrospinal fluid between skull and brain: grows with age."""
    ventricle: float
    """Linear size of the ventricles, 1 = middle age."""
    turn_rad: float
    shift_mm: tuple[float, float]
    lesions: tuple[tuple[float, float, float], ...]
    """Each: place across and along (shares of the brain's half axes) and radius in mm."""
    seed: int
    """Of the folds and the fine structure."""


@dataclass(frozen=True, eq=False)
class Head:
    """Shares [tissues, size, size] float32, between 0 and 1, and where the finding is."""

    shares: FloatMap
    finding: npt.NDArray[np.bool_]
    pitch_mm: float


def draw_head(rng: np.random.Generator, positive: bool) -> HeadPatient:  # noqa: FBT001 - the label is the subject
    """Draw one adult head; lesions are foci of white matter disease when `positive`."""
    age = int(np.clip(rng.normal(55, 18), 18, 95))
    count = int(rng.integers(2, 8)) if positive else 0
    return HeadPatient(
        positive=positive,
        age_years=age,
        half_width_mm=float(rng.normal(76, 3)),
        half_length_mm=float(rng.normal(94, 4)),
        scalp_mm=float(rng.uniform(4, 7)),
        skull_mm=float(rng.uniform(5, 8)),
        cortex_mm=float(rng.normal(3.4 - 0.008 * (age - 50), 0.2)),
        gap_mm=float(np.clip(rng.normal(2.5 + 0.05 * (age - 40), 0.6), 1, 7)),
        ventricle=float(np.clip(rng.normal(1.0 + 0.012 * (age - 50), 0.12), 0.5, 2.0)),
        turn_rad=float(rng.normal(0, 0.04)),
        shift_mm=(float(rng.normal(0, 2)), float(rng.normal(0, 3))),
        lesions=tuple(
            (
                float(rng.choice([-1, 1]) * rng.uniform(0.25, 0.5)),
                float(rng.uniform(-0.5, 0.5)),
                float(rng.uniform(2, 6)),
            )
            for _ in range(count)
        ),
        seed=int(rng.integers(2**62)),
    )


def render_head(patient: HeadPatient, size: int = 512) -> Head:
    """The slice at the level of the lateral ventricles, 240 mm wide."""
    pitch = FIELD_MM / size
    x, y = _grid(size, patient)
    rng = np.random.default_rng(patient.seed)
    outer = np.hypot(x / patient.half_width_mm, y / patient.half_length_mm)
    middle = np.float32((patient.half_width_mm + patient.half_length_mm) / 2)
    depth = (1 - outer) * middle  # millimetres below the skin, along the mean radius
    under = depth - np.float32(patient.scalp_mm + patient.skull_mm)
    surface = under - np.float32(patient.gap_mm)
    sulcus, deepest = _sulci(rng, np.arctan2(y, x), surface, patient)
    fissure = np.abs(x) - np.float32(0.5 + 0.15 * patient.gap_mm)
    # The callosal body joins the halves in the middle.
    fissure = np.maximum(fissure, np.float32(30 * patient.half_length_mm / 94) - np.abs(y))
    halves = np.minimum(np.minimum(surface, fissure), np.maximum(sulcus, surface - deepest))
    ribbon = np.float32(patient.cortex_mm)
    deep = np.minimum(np.minimum(surface, fissure) - ribbon, np.maximum(sulcus, surface - deepest) - ribbon)
    rough = mottle(rng, size)
    white = _in(deep + np.float32(0.5) * rough, pitch)
    nuclei = _nuclei(x, y, patient, pitch)
    fluid = np.maximum(_ventricles(x, y, patient, pitch), 0)
    lesion = _lesions(x, y, rough, patient, pitch) * white * (1 - fluid)
    inner, bone, skin = (
        _in(halves, pitch),
        _in(under, pitch),
        _in(depth - np.float32(patient.scalp_mm), pitch),
    )
    shares = np.empty((len(TISSUES), size, size), dtype=np.float32)
    shares[0] = _in(depth, pitch) - skin
    shares[1] = skin - bone
    shares[2] = bone - inner * (1 - fluid)
    shares[3] = inner * (1 - fluid) * (1 - white * (1 - nuclei))
    shares[4] = inner * (1 - fluid) * white * (1 - nuclei) - lesion * (1 - nuclei)
    shares[5] = lesion * (1 - nuclei)
    return Head(shares.clip(0, 1), shares[5] > 0.5, pitch)


def _grid(size: int, patient: HeadPatient) -> tuple[FloatMap, FloatMap]:
    axis = ((np.arange(size) - (size - 1) / 2) * (FIELD_MM / size)).astype(np.float32)
    columns, rows = (
        axis[None, :] - np.float32(patient.shift_mm[0]),
        axis[:, None] - np.float32(patient.shift_mm[1]),
    )
    cos, sin = np.float32(np.cos(patient.turn_rad)), np.float32(np.sin(patient.turn_rad))
    return cos * columns + sin * rows, cos * rows - sin * columns


def _in(distance_mm: FloatMap, pitch_mm: float) -> FloatMap:
    """Share of a pixel inside, from the distance of its centre to the border (positive inside)."""
    share: FloatMap = (distance_mm / np.float32(pitch_mm) + np.float32(0.5)).clip(0, 1)
    return share


def _sulci(
    rng: np.random.Generator, angle: FloatMap, surface: FloatMap, patient: HeadPatient
) -> tuple[FloatMap, FloatMap]:
    """Millimetres to the wall of the nearest sulcus, and how deep the sulci of each direction go."""
    phase = rng.uniform(0, 2 * np.pi, 5).astype(np.float32)
    # Sulci run aslant and bend on their way down.
    bent = angle + np.float32(0.09) * np.sin(np.float32(0.22) * surface + phase[0])
    wave = (
        FOLDS * bent
        + np.float32(0.5) * np.sin(3 * bent + phase[1])
        + np.float32(0.22) * np.sin(7 * bent + phase[2])
    )
    radius = np.float32((patient.half_width_mm + patient.half_length_mm) / 2 - 14) - surface
    away = np.abs(np.sin(wave)) * (radius / FOLDS) - np.float32(0.3 + 0.14 * patient.gap_mm)
    deepest = 12 + 4 * np.sin(5 * angle + phase[3]) + 3 * np.sin(11 * angle + phase[4])
    return away.astype(np.float32), deepest.astype(np.float32)


def _ventricles(x: FloatMap, y: FloatMap, patient: HeadPatient, pitch: float) -> FloatMap:
    """Two horns in front, two behind, the third ventricle between."""
    size = np.float32(patient.ventricle)
    best = np.full(x.shape, -9, dtype=np.float32)
    for side in (-1, 1):
        for along, tilt, wide, long in ((-19.0, 0.42, 3.6, 12.0), (25.0, -0.40, 4.0, 11.0)):
            away_x, away_y = x - np.float32(side * (9.0 if along < 0 else 20.0)), y - np.float32(along)
            turn = np.float32(side * tilt)
            across, down = away_x + turn * away_y, away_y
            best = np.maximum(
                best, (1 - np.hypot(across / (wide * size), down / (long * size))) * wide * size
            )
    third = (1 - np.hypot(x / (1.6 * size), (y - 3) / (11 * size))) * np.float32(1.6) * size
    return _in(np.maximum(best, third), pitch)


def _nuclei(x: FloatMap, y: FloatMap, patient: HeadPatient, pitch: float) -> FloatMap:
    """Thalamus and lentiform nucleus of both sides: grey inside the white."""
    scale = np.float32(patient.half_width_mm / 76)
    side = np.abs(x)
    thalamus = (1 - np.hypot((side - 11 * scale) / 8, (y - 8) / 13)) * 8
    lentiform = (1 - np.hypot((side - 25 * scale) / 6.5, (y + 3) / 15)) * np.float32(6.5)
    caudate = (1 - np.hypot((side - 14 * scale) / 4, (y + 19) / 8)) * 4
    return _in(np.maximum(np.maximum(thalamus, lentiform), caudate).astype(np.float32), pitch)


def _lesions(x: FloatMap, y: FloatMap, rough: FloatMap, patient: HeadPatient, pitch: float) -> FloatMap:
    found = np.zeros(x.shape, dtype=np.float32)
    for across, along, radius in patient.lesions:
        away = np.hypot(x - across * patient.half_width_mm, y - along * patient.half_length_mm)
        # An outline that follows the tissue's roughness: foci are not discs.
        found = np.maximum(
            found, _in(np.float32(radius) - away + np.float32(0.25 * radius) * rough, 2 * pitch)
        )
    return found
