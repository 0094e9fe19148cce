"""From a drawn patient to line integrals: each organ is a thickness in mm, seen through a cone of rays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.phantoms import bones, organs, texture
from simulations.phantoms.patient import Patient, Pose, Projection
from simulations.phantoms.view import GEOMETRY, Exposure, FloatMap, View

# Mass attenuation at 60 keV (cm2/g), the mean energy of a filtered 120 kV beam: Hubbell & Seltzer,
# NISTIR 5632, tables for water, cortical bone and adipose tissue (ICRU-44). Times density (g/cm3), per mm.
MU_WATER: Final = 0.2059 * 1.00 / 10
MU_FAT: Final = 0.1974 * 0.95 / 10
MU_BONE: Final = 0.3148 * 1.92 / 10

MOTTLE: Final = np.float32(0.10)
"""Relative standard deviation of the lung's density along the beam; our choice, by eye."""
LEAST_OPACITY: Final = np.float32(0.03)
"""Line integral below which nothing counts as finding: 2 mm of fluid."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a beam meets. Maps are [size, size] float32, dimensionless line integrals at 60 keV."""

    soft: FloatMap
    bone: FloatMap
    lung: npt.NDArray[np.bool_]
    """Where a lung is seen."""
    finding: npt.NDArray[np.bool_]
    """Where the finding adds at least a third of its peak: the truth for localisation."""
    opacity: FloatMap
    """What the finding alone adds to the line integral."""
    pitch_mm: float
    projection: Projection

    @property
    def attenuation(self) -> FloatMap:
        """The line integral of all tissue at 60 keV."""
        return self.soft + self.bone


def render(patient: Patient, projection: Projection, size: int = 256, pose: Pose | None = None) -> Anatomy:
    """The patient as the beam meets them in this projection.

    Args:
        patient: what `draw_patient` drew.
        projection: "PA" or "AP".
        size: rows and columns, a multiple of 4; the field is always 384 mm wide.
        pose: what `draw_pose` drew; straight and centred when None.
    """
    exposure = Exposure(GEOMETRY[projection], patient, pose or Pose(), size)
    detail = texture.detail(exposure)
    maps = np.empty((4, size, size), dtype=np.float32)
    # Bands of rows keep every intermediate array small enough for the cache: half the time of whole maps.
    for top in range(0, size, size // 4):
        rows = slice(top, top + size // 4)
        for target, band in zip(maps, _band(exposure, rows, detail.of(rows)), strict=True):
            target[rows] = band
    soft, bone, air, opacity = maps
    return Anatomy(
        soft=soft,
        bone=bone,
        lung=air > 12,
        finding=opacity > np.maximum(opacity.max() / 3, LEAST_OPACITY),
        opacity=opacity,
        pitch_mm=exposure.pitch_mm,
        projection=projection,
    )


def _band(exposure: Exposure, rows: slice, detail: texture.Detail) -> tuple[FloatMap, ...]:
    """Soft tissue, bone (line integrals), lung air (mm) and opacity (line integral) of some rows."""
    patient, view, rise = exposure.patient, View(exposure, rows), exposure.rise_mm
    chest = organs.lungs(patient, view, rise)
    trunk = organs.body(patient, view)
    solid = organs.mediastinum(patient, view) + 0.85 * organs.heart(patient, view, rise)
    air = (np.minimum(chest.air_mm, trunk - 25) - solid).clip(0, 400)
    full = organs.rest(air * np.float32(1 / 45))
    fluid = np.minimum(organs.opacities(patient, chest, detail.mottle) * full, air)
    mu_lung = np.float32(MU_WATER * patient.lung_density)
    more = np.float32(MU_WATER) - mu_lung
    filled = np.minimum(fluid + detail.vessels_mm * full, air)
    soft = np.float32(MU_WATER) * trunk + more * (filled - air) + (mu_lung * MOTTLE) * air * detail.mottle
    soft += np.float32(MU_FAT) * organs.fat(patient, view, trunk)
    soft -= np.float32(MU_WATER) * organs.gas(patient, view, trunk, rise)
    bone = bones.skeleton(patient, view, chest, exposure.geometry.scapula_mm)
    return soft.clip(0, 20), np.float32(MU_BONE - MU_WATER) * bone, air, more * fluid
