"""A synthetic chest for computed tomography: thin axial slices in Hounsfield units, drawn and then rendered.

Vessels and nodules have a place along the body, so that thick slices blur them together as real ones do.
Lengths are millimetres; x grows to the image's right (the patient's left), y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.phantoms.texture import mottle

FloatMap = npt.NDArray[np.float32]

FIELD_MM: Final = 400.0
AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, BLOOD_HU = -1000.0, -860.0, -100.0, 50.0, 45.0
SPONGY_HU, CORTICAL_HU, NODULE_HU, MARROW_HU = 250.0, 900.0, 30.0, 60.0
"""Usual values of unenhanced scans at 120 kV, rounded."""
RIBS: Final = 13
"""Sections of ribs in one slice, both sides together and the sternum not counted."""
VESSELS: Final = 260


@dataclass(frozen=True)
class TrunkPatient:
    """Everything that `render_trunk` needs."""

    positive: bool
    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    heart: float
    shift_mm: tuple[float, float]
    nodules: tuple[tuple[float, float, float, float], ...]
    """Each: x, y, z and radius in mm; x and y within the lungs."""
    seed: int


@dataclass(frozen=True, eq=False)
class Trunk:
    """Thin slices [slices, size, size] float32 in Hounsfield units, `spacing_mm` apart, and where nodules are."""

    hounsfield: FloatMap
    finding: npt.NDArray[np.bool_]
    pitch_mm: float
    spacing_mm: float


def draw_trunk(rng: np.random.Generator, positive: bool) -> TrunkPatient:  # noqa: FBT001 - the label is the subject
    """Draw one adult chest; nodules of 3 to 9 mm radius when `positive`."""
    fat = float(np.clip(rng.gamma(4.0, 5.0), 6, 40))
    nodules = []
    for _ in range(int(rng.integers(1, 4)) if positive else 0):
        around, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.75)
        side = rng.choice([-1, 1])
        x, y = side * 78 + 42 * out * np.cos(around), 2 + 62 * out * np.sin(around)
        nodules.append((float(x), float(y), float(rng.uniform(-2, 2)), float(rng.uniform(3, 9))))
    return TrunkPatient(
        positive=positive,
        half_width_mm=float(rng.normal(148, 7)) + fat,
        half_depth_mm=float(rng.normal(100, 6)) + 0.8 * fat,
        fat_mm=fat,
        heart=float(np.clip(rng.normal(1.0, 0.07), 0.8, 1.25)),
        shift_mm=(float(rng.normal(0, 4)), float(rng.normal(0, 4))),
        nodules=tuple(nodules),
        seed=int(rng.integers(2**62)),
    )


def render_trunk(patient: TrunkPatient, size: int = 512, slices: int = 5, spacing_mm: float = 1.0) -> Trunk:
    """Thin slices around the level of the heart, 400 mm wide."""
    pitch = FIELD_MM / size
    axis = ((np.arange(size) - (size - 1) / 2) * pitch).astype(np.float32)
    x = np.ascontiguousarray(np.broadcast_to(axis[None, :] - np.float32(patient.shift_mm[0]), (size, size)))
    y = np.ascontiguousarray(np.broadcast_to(axis[:, None] - np.float32(patient.shift_mm[1]), (size, size)))
    rng = np.random.default_rng(patient.seed)
    still, lung = _body(x, y, patient, mottle(rng, size), pitch)
    vessels = _draw_vessels(rng)
    volume = np.empty((slices, size, size), dtype=np.float32)
    found = np.zeros((slices, size, size), dtype=np.bool_)
    for number in range(slices):
        z = np.float32((number - (slices - 1) / 2) * spacing_mm)
        volume[number] = still
        solid = _vessels(axis, vessels, z, patient, pitch)
        _lay(volume[number], solid * lung, BLOOD_HU)
        nodule = _spheres(x, y, z, patient.nodules, pitch)
        _lay(volume[number], nodule * lung, NODULE_HU)
        found[number] = nodule * lung > 0.5
    return Trunk(volume, found, pitch, spacing_mm)


def _in(distance_mm: FloatMap, pitch_mm: float) -> FloatMap:
    """Share of a pixel inside, from the distance of its centre to the border (positive inside)."""
    share: FloatMap = (distance_mm / np.float32(pitch_mm) + np.float32(0.5)).clip(0, 1)
    return share


def _ellipse(x: FloatMap, y: FloatMap, half: tuple[float, float], pitch: float) -> FloatMap:
    """Share of each pixel in an ellipse around the origin of these coordinates."""
    inner = 1 - np.hypot(x / np.float32(half[0]), y / np.float32(half[1]))
    return _in(inner * np.float32(min(half)), pitch)


def _lay(image: FloatMap, share: FloatMap, value: float) -> None:
    """Put a tissue over what is there, in place."""
    image += share * (np.float32(value) - image)


def _body(
    x: FloatMap, y: FloatMap, patient: TrunkPatient, rough: FloatMap, pitch: float
) -> tuple[FloatMap, FloatMap]:
    """What does not change within some millimetres, and the share of lung."""
    wide, deep, fat = patient.half_width_mm, patient.half_depth_mm, patient.fat_mm
    image = np.full(x.shape, AIR_HU, dtype=np.float32)
    # A trunk is flatter than an ellipse: the fourth power in depth.
    squared = np.sqrt((x / wide) ** 2 + np.abs(y / deep) ** 3)
    _lay(image, _in((1 - squared) * np.float32(deep), pitch), FAT_HU)
    inner = np.sqrt((x / (wide - fat)) ** 2 + np.abs(y / (deep - 0.8 * fat)) ** 3)
    _lay(image, _in((1 - inner) * np.float32(deep - 0.8 * fat), pitch), MUSCLE_HU)
    lung = np.zeros_like(image)
    for side in (-1, 1):
        lung = np.maximum(lung, _ellipse(x - side * 78, y - 2, (55.0, 80.0), pitch))
    heart = _ellipse(x - 22, y + 28 + 0.25 * x, (58 * patient.heart, 42 * patient.heart), pitch)
    middle = _ellipse(x, y - 12, (27.0, 52.0), pitch)
    lung = lung * (1 - heart) * (1 - middle)
    _lay(image, middle, FAT_HU + 90)
    _lay(image, lung, LUNG_HU)
    image += lung * np.float32(22) * rough
    _lay(image, heart, BLOOD_HU)
    _lay(image, _ellipse(x - 24, y - 52, (13.0, 13.0), pitch), BLOOD_HU)  # descending aorta
    _lay(image, _ellipse(x - 6, y - 40, (7.0, 5.0), pitch), MUSCLE_HU)  # oesophagus
    _bones(image, x, y, pitch)
    return image, lung


def _bones(image: FloatMap, x: FloatMap, y: FloatMap, pitch: float) -> None:
    """Vertebra with its canal and spine, sternum, and ribs cut aslant."""
    _lay(image, _ellipse(x, y - 68, (19.0, 15.0), pitch), CORTICAL_HU)
    _lay(image, _ellipse(x, y - 68, (17.3, 13.3), pitch), SPONGY_HU)
    _lay(image, _ellipse(x, y - 92, (17.0, 10.0), pitch), CORTICAL_HU * 0.7)
    _lay(image, _ellipse(x, y - 88, (8.5, 7.5), pitch), MUSCLE_HU - 20)
    _lay(image, _ellipse(x, y + 88, (17.0, 6.0), pitch), SPONGY_HU + 150)
    _lay(image, _ellipse(x, y + 88, (15.0, 4.3), pitch), SPONGY_HU)
    for place in np.linspace(-0.86 * np.pi, 0.86 * np.pi, RIBS):
        angle = place - np.pi / 2  # from the front round both sides
        at_x, at_y = 138 * np.cos(angle), 2 + 88 * np.sin(angle)
        along = np.arctan2(88 * np.cos(angle), -138 * np.sin(angle))
        cos, sin = np.float32(np.cos(along)), np.float32(np.sin(along))
        away_x, away_y = x - np.float32(at_x), y - np.float32(at_y)
        across, down = cos * away_x + sin * away_y, cos * away_y - sin * away_x
        _lay(image, _ellipse(across, down, (13.0, 4.2), pitch), CORTICAL_HU)
        _lay(image, _ellipse(across, down, (11.5, 2.6), pitch), SPONGY_HU)


def _draw_vessels(rng: np.random.Generator) -> FloatMap:
    """Each: x, y at z = 0, slopes along z, radius; float32 [vessels, 5]. Fewer and finer towards the wall."""
    side = rng.choice([-1.0, 1.0], VESSELS)
    around, out = rng.uniform(0, 2 * np.pi, VESSELS), np.sqrt(rng.uniform(0, 1, VESSELS))
    x, y = side * 78 + 52 * out * np.cos(around), 2 + 76 * out * np.sin(around)
    hilar = np.hypot(side * 35 - x, y + 4)
    radius = np.clip(rng.gamma(3.0, 0.35, VESSELS) * (1.9 - hilar / 75), 0.5, 6)
    slope = rng.normal(0, 1.1, (2, VESSELS))
    return np.stack([x, y, slope[0], slope[1], radius], axis=1).astype(np.float32)


def _vessels(
    axis: FloatMap, vessels: FloatMap, z: np.float32, patient: TrunkPatient, pitch: float
) -> FloatMap:
    """Share of each pixel in a vessel, drawn in small patches."""
    share = np.zeros((axis.size, axis.size), dtype=np.float32)
    for x, y, slope_x, slope_y, radius in vessels:
        at_x = x + slope_x * z + np.float32(patient.shift_mm[0])
        at_y = y + slope_y * z + np.float32(patient.shift_mm[1])
        # A vessel that runs aslant is cut as an ellipse: its circle is widened by half the slope.
        reach = radius * (1 + np.hypot(slope_x, slope_y) / 2) + 2 * pitch
        columns = slice(*np.searchsorted(axis, [at_x - reach, at_x + reach]))
        rows = slice(*np.searchsorted(axis, [at_y - reach, at_y + reach]))
        away = np.hypot(axis[None, columns] - at_x, axis[rows, None] - at_y)
        patch = share[rows, columns]
        np.maximum(patch, _in(np.float32(radius) - away, pitch), out=patch)
    return share


def _spheres(
    x: FloatMap,
    y: FloatMap,
    z: np.float32,
    nodules: tuple[tuple[float, float, float, float], ...],
    pitch: float,
) -> FloatMap:
    share = np.zeros_like(x)
    for at_x, at_y, at_z, radius in nodules:
        left = radius**2 - float(z - at_z) ** 2
        if left > 0:
            cut = np.float32(np.sqrt(left))
            share = np.maximum(share, _in(cut - np.hypot(x - np.float32(at_x), y - np.float32(at_y)), pitch))
    return share
