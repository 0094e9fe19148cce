"""The organs, each as a thickness along the beam in mm, [size, size] float32.

Proportions are read off ordinary adult chest radiographs: lungs 23 to 28 cm high and 26 to 30 cm wide
together, cardiothoracic ratio 0.42 to 0.50 in PA, ten ribs in sight, 20 to 25 mm from rib to rib.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from simulations.phantoms.patient import Patient

if TYPE_CHECKING:
    from simulations.phantoms.anatomy import View

FloatMap = npt.NDArray[np.float32]

APEX_MM: Final = -142.0
BASE_MM: Final = 132.0
RIGHT_DOME_MM: Final = 72.0
LEFT_DOME_MM: Final = 84.0
"""Height of the diaphragm's domes: the patient's right stands higher, over the liver."""

FRONT_RIBS, HEART, LUNGS, SPINE, BACK_RIBS = 0.08, 0.33, 0.5, 0.78, 0.92
"""Depth of structures from the front (0) to the back (1) of the chest."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """The air of both lungs, and the lungs' own coordinates of every pixel."""

    air_mm: FloatMap
    across: FloatMap
    """-1 at the inner, +1 at the outer border."""
    down: FloatMap
    """0 at the apex, 1 at the costophrenic angle."""
    x: FloatMap
    y: FloatMap
    apex_mm: float
    base_mm: float
    width: float

    def place(self, side: int, across: float, down: float) -> tuple[float, float]:
        """X and y in mm of a point given in lung coordinates."""
        centre, half = _lung_axis(down, self.width)
        return side * (centre + across * half), self.apex_mm + down * (self.base_mm - self.apex_mm)


def _lung_axis(down: float, width: float) -> tuple[float, float]:
    return (56 + 18 * down) * width, 58 * width * math.sqrt(1 - (1 - down) ** 3)


def _ellipse(x: FloatMap, y: FloatMap, centre: tuple[float, float], axes: tuple[float, float]) -> FloatMap:
    """1 - r^2 of an ellipse, clipped at 0: its square root is the profile of an ellipsoid."""
    across = (x - np.float32(centre[0])) * np.float32(1 / axes[0])
    down = (y - np.float32(centre[1])) * np.float32(1 / axes[1])
    return np.maximum(1 - across * across - down * down, 0)


def lungs(patient: Patient, view: View, rise_mm: float) -> Lungs:
    """Both lungs down to the diaphragm, whose domes stand `rise_mm` higher than at full breath."""
    x, y = view.at(LUNGS)
    width, scale = patient.width * patient.scale, patient.scale
    apex, base = APEX_MM * scale, BASE_MM * scale - rise_mm
    down = np.clip((y - apex) * np.float32(1 / (base - apex)), 0, 1)
    up = 1 - down
    bulge = np.sqrt(1 - up * up * up)
    beside = np.abs(x)
    across = (beside - (56 + 18 * down) * width) / (58 * width * bulge + 0.01)
    chord = np.sqrt(np.maximum(1 - across * across, 0))
    dome = np.where(x > 0, np.float32(LEFT_DOME_MM), np.float32(RIGHT_DOME_MM)) * scale - rise_mm
    away = (beside - 70 * width) * np.float32(1 / (88 * width))
    floor = dome + 62 * away * away
    seen = 0.86 * np.clip((floor - y) / 5, 0, 1) + 0.14 * np.clip((floor + 34 - y) / 30, 0, 1)
    depth = patient.depth_mm * 0.80
    air = depth * (0.40 + 0.60 * bulge) * chord * seen
    return Lungs(air, across, down, x, y, apex, base, width)


def heart(patient: Patient, view: View, rise_mm: float) -> FloatMap:
    """Ventricles and right atrium; a high diaphragm lifts and widens the heart."""
    x, y = view.at(HEART)
    size = patient.heart * patient.scale
    tilt = np.float32(0.62)
    middle_x, middle_y = 28 * size, 42 * patient.scale - 0.8 * rise_mm
    u = (x - middle_x) * np.cos(tilt) + (y - middle_y) * np.sin(tilt)
    v = (y - middle_y) * np.cos(tilt) - (x - middle_x) * np.sin(tilt)
    ventricle = _ellipse(u, v, (0, 0), (66 * size, 47 * size))
    atrium = _ellipse(x, y, (-14 * size, 38 * patient.scale - 0.8 * rise_mm), (37 * size, 46 * size))
    return np.float32(112 * size) * np.sqrt(np.maximum(ventricle, atrium))


def mediastinum(patient: Patient, view: View) -> FloatMap:
    """Great vessels, aortic knob, hila and the soft tissue before the spine."""
    x, y = view.at(LUNGS)
    scale, wide = patient.scale, patient.mediastinum * patient.scale
    centre = (x - 3) * np.float32(1 / (30 * wide))
    column = 100 * np.sqrt(np.maximum(1 - centre * centre, 0)) * np.clip((y + 190) / 60, 0.3, 1)
    knob = 62 * np.sqrt(_ellipse(x, y, (26 * wide, -58 * scale), (20 * wide, 23 * wide)))
    aorta = 42 * np.sqrt(_ellipse(x, y, (22 * wide, 10 * scale), (17 * wide, 95 * scale)))
    hilum = np.abs(x) - 40 * wide
    low = np.where(x > 0, np.float32(-14), np.float32(-6)) * scale
    hila = 34 * np.sqrt(np.maximum(1 - (hilum / 15) ** 2 - ((y - low) / 26) ** 2, 0))
    return np.maximum(np.maximum(column, knob), aorta) + hila


def body(patient: Patient, view: View) -> FloatMap:
    """The trunk with its muscles: an elliptic cylinder that widens to the shoulders, and the neck."""
    x, y = view.at(LUNGS)
    scale, beside = patient.scale, np.abs(x)
    half = 152 * patient.width * scale + np.maximum(-92 * scale - y, 0) * 1.25
    inside = np.maximum(1 - (beside / half) ** 2, 0)
    shoulder = (-196 + 0.42 * np.maximum(beside - 52, 0)) * scale
    depth = patient.depth_mm * (1 - 0.22 * np.clip((-70 * scale - y) / 110, 0, 1))
    return depth * np.sqrt(inside) * np.clip((y - shoulder) / 22, 0, 1)


def fat(patient: Patient, view: View, trunk: FloatMap) -> FloatMap:
    """Subcutaneous fat around the trunk, and the breasts."""
    x, y = view.at(LUNGS)
    half = (
        152 * patient.width * patient.scale + patient.fat_mm + np.maximum(-92 * patient.scale - y, 0) * 1.25
    )
    inside = np.maximum(1 - np.square(x / half), 0)
    whole = (patient.depth_mm + 2 * patient.fat_mm) * np.sqrt(inside)
    shoulder = (-190 + 0.42 * np.maximum(np.abs(x) - 52, 0)) * patient.scale
    layer = np.maximum(whole - np.maximum(trunk, patient.depth_mm * 0.3), 0) * np.clip(
        (y - shoulder) / 25, 0, 1
    )
    layer = np.minimum(layer, 3 * patient.fat_mm)
    if not patient.breast_mm:
        return layer
    near_x, near_y = view.at(FRONT_RIBS)
    drop = 66 + 0.35 * patient.breast_mm
    beside = (np.abs(near_x) - 78 * patient.width) * np.float32(1 / 58)
    below = (near_y - drop) * np.float32(1 / 54)
    breast = np.maximum(1 - beside * beside - below * below, 0)
    return layer + 1.7 * patient.breast_mm * breast * np.sqrt(np.sqrt(breast))


def gas(patient: Patient, view: View, trunk: FloatMap, rise_mm: float) -> FloatMap:
    """Trachea with the main bronchi, and the stomach's bubble under the left dome."""
    x, y = view.at(LUNGS)
    scale = patient.scale
    fork = np.maximum(y + 42 * scale, 0)
    offset = np.abs(np.abs(x + 2) - fork * 0.9) / 8.5
    tube = 15 * np.sqrt(np.maximum(1 - offset * offset, 0)) * np.clip((-14 * scale - y) / 12, 0, 1)
    bubble = _ellipse(x, y, (62 * scale, 112 * scale - rise_mm), (30 * scale, 15 * scale))
    return np.minimum(tube + 38 * np.sqrt(bubble), trunk * np.float32(0.8))


def _tube(distance_mm: FloatMap, half_mm: float) -> FloatMap:
    """A hollow bone seen from the side: bright at its two walls, paler between, in mm of cortical bone."""
    ratio = distance_mm * np.float32(1 / half_mm)
    square = ratio * ratio
    outer = np.sqrt(np.maximum(1 - square, 0))
    inner = np.sqrt(np.maximum(1 - square * np.float32(1.9), 0))
    return np.float32(half_mm) * (outer - np.float32(0.68) * inner)


def skeleton(patient: Patient, view: View, chest: Lungs, scapula_mm: float) -> FloatMap:
    """Ribs front and back, spine, clavicles and shoulder blades, in mm of cortical bone."""
    bones = _back_ribs(patient, view, chest)
    bones += _front_ribs(patient, view, chest)
    bones += _spine(patient, view)
    bones += _clavicles(patient, view)
    bones += _scapulae(patient, view, scapula_mm)
    return np.float32(patient.bone) * bones


def _back_ribs(patient: Patient, view: View, chest: Lungs) -> FloatMap:
    x, y = view.at(BACK_RIBS)
    beside = np.abs(x)
    spacing = np.float32(24.5 * patient.scale)
    sweep = 0.10 * beside + 0.0021 * np.square(np.maximum(beside - 40, 0))
    number = (y - APEX_MM * patient.scale + 4 - sweep) / spacing
    nearest = np.clip(np.rint(number), 0, 10)
    cage = np.clip((1.07 - np.abs(chest.across)) * 14, 0, 1) * (beside > 14)
    curve = 1 + 0.9 * np.maximum(chest.across - 0.55, 0)
    return 1.7 * _tube((number - nearest) * spacing, 6.3 * patient.scale) * cage * curve


def _front_ribs(patient: Patient, view: View, chest: Lungs) -> FloatMap:
    x, y = view.at(FRONT_RIBS)
    beside = np.abs(x)
    spacing = np.float32(29 * patient.scale)
    sweep = 74 - 0.0048 * beside * beside
    number = (y + 118 * patient.scale - sweep) / spacing
    nearest = np.clip(np.rint(number), 0, 5)
    cartilage = np.clip((beside - 52 - 4 * nearest) / 8, 0, 1)
    cage = np.clip((1.05 - np.abs(chest.across)) * 12, 0, 1)
    return 1.15 * _tube((number - nearest) * spacing, 6.8 * patient.scale) * cage * cartilage


def _spine(patient: Patient, view: View) -> FloatMap:
    x, y = view.at(SPINE)
    step = 24.0 * patient.scale
    level = y / np.float32(step)
    gap = np.abs(level - np.rint(level))
    disc = np.clip((0.5 - gap) * 9, 0.35, 1)
    half = 17 * patient.scale
    across = x * np.float32(1 / half)
    vertebra = 10 * np.sqrt(np.maximum(1 - across * across, 0)) * disc
    process = 4 * np.maximum(1 - np.square(x / 5), 0) * np.clip((0.34 - gap) * 8, 0, 1)
    wings = 3.5 * np.maximum(1 - np.square((np.abs(x) - 24) / 11), 0) * np.clip((gap - 0.2) * 5, 0, 1)
    return vertebra + process + wings


def _clavicles(patient: Patient, view: View) -> FloatMap:
    x, y = view.at(FRONT_RIBS)
    beside = np.abs(x) * np.float32(1 / patient.scale)
    lift = 0 if view.geometry.front_at_detector else 14
    line = (-112 - lift - 0.20 * beside + 11 * np.sin((beside - 20) * np.float32(0.045))) * patient.scale
    ends = np.clip((beside - 12) / 5, 0, 1) * np.clip((158 - beside) / 8, 0, 1)
    return 1.5 * _tube(y - line, 7.2 * patient.scale) * ends


def _scapulae(patient: Patient, view: View, from_middle_mm: float) -> FloatMap:
    x, y = view.at(BACK_RIBS)
    beside = np.abs(x) - from_middle_mm * patient.scale
    lean = beside - (y + 85 * patient.scale) * np.float32(-0.18)
    blade = _ellipse(lean, y, (0, -82 * patient.scale), (25, 62 * patient.scale))
    border = np.clip(blade * 6, 0, 1) - 0.72 * np.clip((blade - 0.16) * 6, 0, 1)
    return 3.0 * border


def opacities(patient: Patient, chest: Lungs, mottle: FloatMap) -> FloatMap:
    """Fluid in the air spaces, in mm: bells with an uneven border that grow together where they meet."""
    fluid = np.zeros_like(chest.air_mm)
    for one in patient.opacities:
        x0, y0 = chest.place(one.side, one.across, one.down)
        cos, sin = np.float32(np.cos(one.tilt_rad)), np.float32(np.sin(one.tilt_rad))
        x, y = chest.x - np.float32(x0), chest.y - np.float32(y0)
        u = (cos * x + sin * y) * np.float32(1 / one.width_mm)
        v = (cos * y - sin * x) * np.float32(1 / one.height_mm)
        bell = np.exp(-0.5 * (u * u + v * v)) * (x * one.side > -abs(x0))
        fluid = np.maximum(fluid, np.float32(one.thickness_mm) * bell)
    return fluid * np.clip(1 + 0.45 * mottle, 0.2, 2) if patient.opacities else fluid
