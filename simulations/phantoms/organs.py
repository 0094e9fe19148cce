"""The organs, each as a thickness along the beam in mm, [rows, size] float32.

Proportions are read off ordinary adult chest radiographs: lungs 23 to 28 cm high and 26 to 30 cm wide
together, cardiothoracic ratio 0.42 to 0.50 in PA, ten ribs in sight, 20 to 25 mm from rib to rib.

Written for speed where it does not hide the anatomy: `rest` is a clip (three times faster here than
np.maximum with a scalar), and an organ outside the band of rows costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from simulations.phantoms.patient import Patient

if TYPE_CHECKING:
    from simulations.phantoms.view import View

FloatMap = npt.NDArray[np.float32]

APEX_MM: Final = -142.0
BASE_MM: Final = 132.0
RIGHT_DOME_MM: Final = 72.0
LEFT_DOME_MM: Final = 84.0
"""Height of the diaphragm's domes: the patient's right stands higher, over the liver."""
HALF_WIDTH_MM: Final = 152.0
"""Of the trunk below the armpits."""
ARMPIT_MM: Final = -92.0
BELL_REACH: Final = 3.5
"""Standard deviations after which an opacity's border ends: 0.2% of its peak."""

FRONT_RIBS, HEART, LUNGS, SPINE, BACK_RIBS = 0.08, 0.33, 0.5, 0.78, 0.92
"""Depth of structures from the front (0) to the back (1) of the chest."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """The air of both lungs, and the lungs' own coordinates of every pixel."""

    air_mm: FloatMap
    across: FloatMap
    """-1 at the inner, +1 at the outer border."""
    x: FloatMap
    y: FloatMap
    apex_mm: float
    base_mm: float
    width: float

    def place(self, side: int, across: float, down: float) -> tuple[float, float]:
        """Where a point lies, x and y in mm, that is given in lung coordinates."""
        centre, half = (56 + 18 * down) * self.width, 58 * self.width * math.sqrt(1 - (1 - down) ** 3)
        return side * (centre + across * half), self.apex_mm + down * (self.base_mm - self.apex_mm)


def rest(values: FloatMap) -> FloatMap:
    """Values clipped to 0 and 1: what 1 - r^2 leaves inside an outline."""
    inside: FloatMap = values.clip(0, 1)
    return inside


def ramp(values: FloatMap, start: float, over: float) -> FloatMap:
    """0 before `start`, 1 from `start + over` on, a straight line between (falls when `over` < 0)."""
    return rest(values * np.float32(1 / over) - np.float32(start / over))


def _chord(across: FloatMap) -> FloatMap:
    """Half the path through a unit circle at distance `across` from its centre."""
    half: FloatMap = np.sqrt(rest(1 - across * across))
    return half


def ellipse(x: FloatMap, y: FloatMap, centre: tuple[float, float], axes: tuple[float, float]) -> FloatMap:
    """1 - r^2 of an ellipse, clipped at 0: its square root is the profile of an ellipsoid."""
    across = (x - np.float32(centre[0])) * np.float32(1 / axes[0])
    down = (y - np.float32(centre[1])) * np.float32(1 / axes[1])
    return rest(1 - across * across - down * down)


def lungs(patient: Patient, view: View, rise_mm: float) -> Lungs:
    """Both lungs down to the diaphragm, whose domes stand `rise_mm` higher than at full breath."""
    x, y = view.at(LUNGS)
    width, scale = patient.width * patient.scale, patient.scale
    apex, base = APEX_MM * scale, BASE_MM * scale - rise_mm
    down = ramp(y, apex, base - apex)
    up = 1 - down
    bulge = np.sqrt(1 - up * up * up)
    beside = np.abs(x)
    across = (beside - (56 * width + np.float32(18 * width) * down)) / (np.float32(58 * width) * bulge + 0.01)
    dome = (x > 0) * np.float32((LEFT_DOME_MM - RIGHT_DOME_MM) * scale)
    away = (beside - 70 * width) * np.float32(1 / (88 * width))
    above = dome + 62 * (away * away) - (y - np.float32(RIGHT_DOME_MM * scale - rise_mm))
    seen = 0.86 * ramp(above, 0, 5) + 0.14 * ramp(above, -34, 30)
    depth = patient.depth_mm * 0.80
    air = (0.40 * depth + np.float32(0.60 * depth) * bulge) * _chord(across) * seen
    return Lungs(air, across, x, y, apex, base, width)


def heart(patient: Patient, view: View, rise_mm: float) -> FloatMap | float:
    """Ventricles and right atrium; a high diaphragm lifts the heart."""
    size, middle = patient.heart * patient.scale, 42 * patient.scale - 0.8 * rise_mm
    if not view.meets(middle - 80 * size, middle + 80 * size):
        return 0.0
    x, y = view.at(HEART)
    cos, sin = np.float32(math.cos(0.62)), np.float32(math.sin(0.62))
    away, down = x - np.float32(28 * size), y - np.float32(middle)
    ventricle = ellipse(away * cos + down * sin, down * cos - away * sin, (0, 0), (66 * size, 47 * size))
    atrium = ellipse(x, y, (-14 * size, middle - 4 * patient.scale), (37 * size, 46 * size))
    muscle: FloatMap = np.float32(112 * size) * np.sqrt(np.maximum(ventricle, atrium))
    return muscle


def mediastinum(patient: Patient, view: View) -> FloatMap:
    """Great vessels, aortic knob, hila and the soft tissue before the spine."""
    x, y = view.at(LUNGS)
    scale, wide = patient.scale, patient.mediastinum * patient.scale
    tissue = 100 * _chord((x - 3) * np.float32(1 / (30 * wide))) * (0.3 + 0.7 * ramp(y, -172, 42))
    if view.meets(-90 * scale, -35 * scale):
        knob = 62 * np.sqrt(ellipse(x, y, (26 * wide, -58 * scale), (20 * wide, 23 * wide)))
        tissue = np.maximum(tissue, knob)
    if view.meets(-90 * scale, 110 * scale):
        aorta = 42 * np.sqrt(ellipse(x, y, (22 * wide, 10 * scale), (17 * wide, 95 * scale)))
        tissue = np.maximum(tissue, aorta)
    if view.meets(-42 * scale, 22 * scale):
        left = 34 * np.sqrt(ellipse(x, y, (40 * wide, -14 * scale), (15, 26)))
        right = 34 * np.sqrt(ellipse(x, y, (-40 * wide, -6 * scale), (15, 26)))
        tissue += left + right
    return tissue


def body(patient: Patient, view: View) -> FloatMap:
    """The trunk with its muscles: an elliptic cylinder that widens to the shoulders, and the neck."""
    x, y = view.at(LUNGS)
    beside = np.abs(x)
    half = HALF_WIDTH_MM * patient.width * patient.scale
    across = np.divide(beside, _outline(patient, view, half), dtype=np.float32)
    slices = np.float32(patient.depth_mm) * _chord(across)
    if view.meets(-400, -60 * patient.scale):
        slices *= 1 - 0.22 * ramp(y, -70 * patient.scale, -110)
        slices *= ramp(y - _shoulder(beside, patient.scale), -196 * patient.scale, 22)
    return slices


def _outline(patient: Patient, view: View, half_mm: float) -> FloatMap:
    """Half width of the body at each row: straight flanks, then the slope to the shoulders."""
    armpit = ARMPIT_MM * patient.scale
    if not view.meets(-400, armpit):
        return np.full(1, half_mm, dtype=np.float32)
    above: FloatMap = (np.float32(armpit) - view.at(LUNGS)[1]).clip(0, 400)
    return np.float32(1.25) * above + np.float32(half_mm)


def _shoulder(beside: FloatMap, scale: float) -> FloatMap:
    """How much lower than at the neck the shoulder's skin lies."""
    slope: FloatMap = np.float32(0.42 * scale) * (beside - 52).clip(0, 400)
    return slope


def fat(patient: Patient, view: View, trunk: FloatMap) -> FloatMap:
    """Subcutaneous fat around the trunk, and the breasts."""
    x, y = view.at(LUNGS)
    half = HALF_WIDTH_MM * patient.width * patient.scale + patient.fat_mm
    across = np.divide(x, _outline(patient, view, half), dtype=np.float32)
    whole = np.float32(patient.depth_mm + 2 * patient.fat_mm) * _chord(across)
    layer: FloatMap = (whole - np.maximum(trunk, np.float32(patient.depth_mm * 0.3))).clip(
        0, 3 * patient.fat_mm
    )
    if view.meets(-400, -60 * patient.scale):
        layer *= ramp(y - _shoulder(np.abs(x), patient.scale), -190 * patient.scale, 25)
    drop = 66 + 0.35 * patient.breast_mm
    if patient.breast_mm and view.meets(drop - 60, drop + 60):
        near_x, near_y = view.at(FRONT_RIBS)
        breast = ellipse(np.abs(near_x), near_y, (78 * patient.width, drop), (58, 54))
        layer += np.float32(1.7 * patient.breast_mm) * breast * np.sqrt(np.sqrt(breast))
    return layer


def gas(patient: Patient, view: View, trunk: FloatMap, rise_mm: float) -> FloatMap:
    """Trachea with the main bronchi, and the stomach's bubble under the left dome."""
    x, y = view.at(LUNGS)
    scale = patient.scale
    air: FloatMap = np.zeros_like(x)
    if view.meets(-400, -14 * scale):
        fork = (y + np.float32(42 * scale)).clip(0, 400)
        offset = (np.abs(np.abs(x + 2) - fork * np.float32(0.9))) * np.float32(1 / 8.5)
        air = 15 * _chord(offset) * ramp(y, -14 * scale, -12)
    middle = 112 * scale - rise_mm
    if view.meets(middle - 18, middle + 18):
        air += 38 * np.sqrt(ellipse(x, y, (62 * scale, middle), (30 * scale, 15 * scale)))
    inside: FloatMap = np.minimum(air, trunk * np.float32(0.8))
    return inside


def opacities(patient: Patient, chest: Lungs, mottle: FloatMap) -> FloatMap:
    """Fluid in the air spaces, in mm: bells with an uneven border that grow together where they meet."""
    fluid: FloatMap = np.zeros_like(mottle)
    for one in patient.opacities:
        x0, y0 = chest.place(one.side, one.across, one.down)
        reach = BELL_REACH * max(one.width_mm, one.height_mm)
        window = _window(chest, (x0, y0), reach)
        x, y = chest.x[window] - np.float32(x0), chest.y[window] - np.float32(y0)
        cos, sin = np.float32(math.cos(one.tilt_rad)), np.float32(math.sin(one.tilt_rad))
        u = (cos * x + sin * y) * np.float32(1 / one.width_mm)
        v = (cos * y - sin * x) * np.float32(1 / one.height_mm)
        bell = np.exp(-0.5 * (u * u + v * v)) * (x * one.side > -abs(x0))
        fluid[window] = np.maximum(fluid[window], np.float32(one.thickness_mm) * bell)
    if patient.opacities:
        fluid *= (1 + np.float32(0.45) * mottle).clip(0.2, 2)
    return fluid


def _window(chest: Lungs, centre: tuple[float, float], reach_mm: float) -> tuple[slice, slice]:
    """The rows and columns of this band that lie within reach of a point; empty when none does."""
    # The middle column and row stand for all: a roll of 0.05 moves the others by less than the margin.
    margin = reach_mm + 0.05 * 200
    x, y = chest.x[chest.x.shape[0] // 2], chest.y[:, chest.y.shape[1] // 2]
    rows, columns = (
        np.flatnonzero(np.abs(axis - np.float32(place)) < margin)
        for axis, place in zip((y, x), reversed(centre), strict=True)
    )
    if not rows.size or not columns.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
