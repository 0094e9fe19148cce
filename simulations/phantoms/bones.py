"""The skeleton, as a thickness of cortical bone along the beam in mm, [rows, size] float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulations.phantoms.organs import APEX_MM, BACK_RIBS, FRONT_RIBS, SPINE, Lungs, ellipse, ramp, rest
from simulations.phantoms.patient import Patient

if TYPE_CHECKING:
    from simulations.phantoms.view import View

FloatMap = npt.NDArray[np.float32]


def skeleton(patient: Patient, view: View, chest: Lungs, scapula_mm: float) -> FloatMap:
    """Ribs front and back, spine, clavicles and shoulder blades, in mm of cortical bone."""
    bones = _back_ribs(patient, view, chest)
    bones += _front_ribs(patient, view, chest)
    bones += _spine(patient, view)
    if view.meets(-178 * patient.scale, -98 * patient.scale):
        bones += _clavicles(patient, view)
    if view.meets(-148 * patient.scale, -16 * patient.scale):
        bones += _scapulae(patient, view, scapula_mm)
    bones *= np.float32(patient.bone)
    return bones


def _tube(distance_mm: FloatMap, half_mm: float) -> FloatMap:
    """A hollow bone seen from the side: bright at its two walls, paler between, in mm of cortical bone."""
    ratio = distance_mm * np.float32(1 / half_mm)
    square = ratio * ratio
    outer = np.sqrt(rest(1 - square))
    inner = np.sqrt(rest(1 - square * np.float32(1.9)))
    wall: FloatMap = np.float32(half_mm) * (outer - np.float32(0.68) * inner)
    return wall


def _back_ribs(patient: Patient, view: View, chest: Lungs) -> FloatMap:
    x, y = view.at(BACK_RIBS)
    beside = np.abs(x)
    spacing = np.float32(24.5 * patient.scale)
    bent = (beside - 40).clip(0, 200)
    sweep = 0.10 * beside + np.float32(0.0021) * bent * bent
    number = (y - np.float32(APEX_MM * patient.scale - 4) - sweep) * np.float32(1 / spacing)
    nearest = np.rint(number).clip(0, 10)
    cage = ramp(np.abs(chest.across), 1.07, -0.07) * (beside > 14)
    beyond: FloatMap = (chest.across - np.float32(0.55)).clip(0, 1)
    curve = np.float32(1.53) * beyond + np.float32(1.7)
    rib: FloatMap = _tube((number - nearest) * np.float32(spacing), 6.3 * patient.scale) * cage * curve
    return rib


def _front_ribs(patient: Patient, view: View, chest: Lungs) -> FloatMap:
    x, y = view.at(FRONT_RIBS)
    beside = np.abs(x)
    spacing = np.float32(29 * patient.scale)
    number = (y - np.float32(74 - 118 * patient.scale) + np.float32(0.0048) * beside * beside) * (1 / spacing)
    nearest = np.rint(number).clip(0, 5)
    cartilage = rest((beside - 52 - 4 * nearest) * np.float32(1 / 8))
    cage = ramp(np.abs(chest.across), 1.05, -0.08)
    return 1.15 * _tube((number - nearest) * spacing, 6.8 * patient.scale) * cage * cartilage


def _spine(patient: Patient, view: View) -> FloatMap:
    """Vertebral bodies with their discs, spinous and transverse processes: only columns near the middle."""
    x, y = view.at(SPINE)
    bone = np.zeros_like(x)
    near = np.flatnonzero(np.abs(x).min(axis=0) < 40)
    if not near.size:
        return bone
    middle = slice(int(near[0]), int(near[-1]) + 1)
    x, level = x[:, middle], y[:, middle] * np.float32(1 / (24.0 * patient.scale))
    gap = np.abs(level - np.rint(level))
    disc = (4.5 - 9 * gap).clip(0.35, 1)
    across = x * np.float32(1 / (17 * patient.scale))
    vertebra = 10 * np.sqrt(rest(1 - across * across)) * disc
    process = 4 * rest(1 - np.square(x * np.float32(0.2))) * ramp(gap, 0.34, -0.125)
    wing = (np.abs(x) - 24) * np.float32(1 / 11)
    bone[:, middle] = vertebra + process + 3.5 * rest(1 - wing * wing) * ramp(gap, 0.2, 0.2)
    return bone


def _clavicles(patient: Patient, view: View) -> FloatMap:
    x, y = view.at(FRONT_RIBS)
    beside = np.abs(x) * np.float32(1 / patient.scale)
    lift = 0.0 if view.geometry.front_at_detector else 14.0
    line = -112 - lift - 0.20 * beside + 11 * np.sin((beside - 20) * np.float32(0.045))
    ends = ramp(beside, 12, 5) * ramp(beside, 158, -8)
    return 1.5 * _tube(y - np.float32(patient.scale) * line, 7.2 * patient.scale) * ends


def _scapulae(patient: Patient, view: View, from_middle_mm: float) -> FloatMap:
    """Shoulder blades: a thin plate with a denser rim."""
    x, y = view.at(BACK_RIBS)
    beside = np.abs(x) - np.float32(from_middle_mm * patient.scale)
    lean = beside + (y + np.float32(85 * patient.scale)) * np.float32(0.18)
    blade = ellipse(lean, y, (0, -82 * patient.scale), (25, 62 * patient.scale))
    plate: FloatMap = np.float32(3.0) * (rest(blade * 6) - np.float32(0.72) * ramp(blade, 0.16, 1 / 6))
    return plate
