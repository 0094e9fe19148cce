"""How a patient is seen: tube, detector and posture, and the rays between them.

Magnification of a structure at distance d from the detector is SID / (SID - d): in AP the heart and the
front ribs lie far from the detector and grow; in PA the spine and the back ribs do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.phantoms.patient import Patient, Pose

FloatMap = npt.NDArray[np.float32]

PITCH_MM: Final = 1.5
"""Side of a rendered pixel at 256 pixels: 384 mm in all, between the 35 and 43 cm of real detectors."""


@dataclass(frozen=True)
class Geometry:
    """Where tube, patient and detector stand."""

    source_to_detector_mm: float
    air_gap_mm: float
    """Skin to detector."""
    front_at_detector: bool
    diaphragm_mm: float
    """How much higher the diaphragm stands: bedside patients cannot breathe in as deeply."""
    scapula_mm: float
    """Distance of the shoulder blades from the midline: turned out of the lungs in PA."""


GEOMETRY: Final = {
    "PA": Geometry(1800.0, 25.0, True, 0.0, 142.0),
    "AP": Geometry(1050.0, 40.0, False, 12.0, 112.0),
}
"""180 cm standing, 100 to 110 cm at the bed: European Guidelines on Quality Criteria, EUR 16260, chest."""


@dataclass(frozen=True)
class Exposure:
    """One patient before one detector of `size` x `size` pixels."""

    geometry: Geometry
    patient: Patient
    pose: Pose
    size: int

    @property
    def pitch_mm(self) -> float:
        """Side of a pixel; the field stays 384 mm wide at any size."""
        return PITCH_MM * 256 / self.size

    @property
    def rise_mm(self) -> float:
        """How much higher than at full breath the diaphragm stands."""
        return self.geometry.diaphragm_mm - self.pose.breath

    def magnification(self, front_to_back: float) -> float:
        """SID / (SID - d) for a structure this far from the front (0) to the back (1)."""
        part = front_to_back if self.geometry.front_at_detector else 1 - front_to_back
        distance = self.geometry.air_gap_mm + part * (self.patient.depth_mm + 2 * self.patient.fat_mm)
        return self.geometry.source_to_detector_mm / (self.geometry.source_to_detector_mm - distance)

    def to_pixels(self, x: FloatMap, y: FloatMap, front_to_back: float) -> tuple[FloatMap, FloatMap]:
        """Column and row (float) where points of that depth fall; the inverse of `View.at`."""
        scale = np.float32(self.magnification(front_to_back))
        x = (x + np.float32(self.pose.turn * (1 - 2 * front_to_back))) * scale + np.float32(
            self.pose.shift_mm[0]
        )
        y = y * scale + np.float32(self.pose.shift_mm[1])
        cos, sin = np.float32(np.cos(self.pose.roll_rad)), np.float32(np.sin(self.pose.roll_rad))
        middle, per_mm = np.float32((self.size - 1) / 2), np.float32(1 / self.pitch_mm)
        columns: FloatMap = (cos * x - sin * y) * per_mm + middle
        rows: FloatMap = (cos * y + sin * x) * per_mm + middle
        return columns, rows


class View:
    """The rays of a band of rows of one exposure: pixel coordinates in mm, seen at any depth."""

    def __init__(self, exposure: Exposure, rows: slice) -> None:
        """Lay the grid of these rows over the patient."""
        self.geometry = exposure.geometry
        self._exposure = exposure
        columns, lines = (axis[rows] for axis in _grid(exposure.size))
        cos, sin = np.float32(np.cos(exposure.pose.roll_rad)), np.float32(np.sin(exposure.pose.roll_rad))
        shift_x, shift_y = (np.float32(s) for s in exposure.pose.shift_mm)
        self._x = cos * columns + sin * lines - shift_x
        self._y = cos * lines - sin * columns - shift_y
        self._seen: dict[float, tuple[FloatMap, FloatMap]] = {}
        self._top, self._bottom = float(self._y.min()), float(self._y.max())

    def meets(self, top_mm: float, bottom_mm: float) -> bool:
        """Whether these rows can show a structure between two heights of the patient, at any depth."""
        # Magnification lies between 1 and 1.5: towards the centre by at most a third.
        top, bottom = min(self._top, self._top / 1.5), max(self._bottom, self._bottom / 1.5)
        return top <= bottom_mm and bottom >= top_mm

    def at(self, front_to_back: float) -> tuple[FloatMap, FloatMap]:
        """X and y in mm in the patient's plane at this depth; turning shifts the front against the back."""
        if front_to_back not in self._seen:
            scale = np.float32(1 / self._exposure.magnification(front_to_back))
            turned = np.float32(self._exposure.pose.turn * (1 - 2 * front_to_back))
            self._seen[front_to_back] = (self._x * scale - turned, self._y * scale)
        return self._seen[front_to_back]


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[FloatMap, FloatMap]:
    axis: FloatMap = ((np.arange(size) - (size - 1) / 2) * (PITCH_MM * 256 / size)).astype(np.float32)
    return np.tile(axis, (size, 1)), np.repeat(axis[:, None], size, axis=1)
