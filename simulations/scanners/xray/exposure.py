"""One exposure: who stood there, and everything recorded of how it was taken.

Scale. A chest of 384 mm on 512 pixels has pixels of 0.75 mm; a panel's elements are 0.15 mm. `binning` says how many
elements one written pixel stands for along a side. With 1 (sampling "element") noise, blur and edge enhancement look,
pixel for pixel, as on the full-resolution image, on an anatomy drawn smaller. With pitch/element (sampling "area")
every pixel collects the quanta of all its elements, as in an image that was averaged down.
Scatter, heel, collimation and markers always use the anatomy's own millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulations.phantoms import Anatomy, Projection
from simulations.scanners.stages import FloatMap
from simulations.scanners.xray.machine import QUANTA_PER_MM2_UGY, Machine, Window


@dataclass(frozen=True, eq=False)
class Subject:
    """Line integrals that a beam meets: maps [rows, columns] float32, dimensionless, at 60 keV."""

    soft: FloatMap
    bone: FloatMap
    pitch_mm: float
    """Side of a pixel at the panel."""
    projection: Projection = "PA"
    estimated: bool = False
    """Whether it was guessed from an image instead of known: see `simulations.scanners.xray.real`."""


@dataclass(frozen=True)
class Marker:
    """A side marker: a letter of lead in the beam, or one stamped on the finished image."""

    letter: Literal["L", "R"]
    height_mm: float
    across_mm: float
    """Centre, from the border on the letter's own side."""
    down_mm: float
    """Upper edge, from the image's top."""
    stamped: bool


@dataclass(frozen=True)
class Exposure:
    """Everything `expose` needs beside the subject. The same record gives the same bits."""

    machine: Machine
    site: str
    month: float
    """Since the study began: how far the machine had drifted."""
    kvp: float
    kerma_ugy: float
    """Air kerma at the panel without patient and grid, microgray."""
    distance_mm: float
    """Focal spot to panel."""
    object_mm: float
    """Middle of the patient to panel."""
    scatter_to_primary: float
    """Mean scatter by mean primary behind the patient, before the grid."""
    scatter_mm: float
    """Standard deviation of the scatter's spread."""
    motion_mm: float
    """How far the patient moved along the image's columns, at the panel."""
    step: float
    """Pixels of the subject for one of the panel: 1 none lost, 1.05 sees 5% more."""
    binning: float
    field_mm: tuple[float, float, float, float]
    """Margins of the collimated field: left, right, top, bottom."""
    marker: Marker
    window: Window
    strength: float
    """Of compression: quality or ratio; 0 without."""
    seed: int

    @property
    def sample_mm(self) -> float:
        """Side, on the panel, of what one written pixel stands for in noise and sharpness."""
        return self.machine.panel.element_mm * self.binning

    @property
    def quanta(self) -> float:
        """Quanta absorbed in one written pixel in the open beam: kerma, times quanta per area, area, fill, absorption."""
        panel = self.machine.panel
        return self.kerma_ugy * QUANTA_PER_MM2_UGY * (self.sample_mm * panel.fill) ** 2 * panel.absorption


def subject_of(anatomy: Anatomy) -> Subject:
    """A phantom as the subject of an exposure; nothing is copied."""
    return Subject(anatomy.soft, anatomy.bone, anatomy.pitch_mm, anatomy.projection)


@dataclass(eq=False)
class Frame:
    """What the stages hand on. `image` is what the last stage left; its unit is that stage's."""

    subject: Subject
    exposure: Exposure
    image: FloatMap
    mu: FloatMap
    """Line integral on the panel's pixels, from stage `projection` on."""
    scattered: FloatMap
    """What arrives at the grid beside the primary, from stage `scatter` on."""
    across: FloatMap
    """Openness of the collimator for each column, 0 to 1, from stage `collimator` on."""
    down: FloatMap
    """The same for each row."""
    pixels: npt.NDArray[np.uint16]
    """The finished image, from stage `digits` on."""

    @property
    def pitch_mm(self) -> float:
        """Side of a panel's pixel in the anatomy's millimetres."""
        return self.subject.pitch_mm * self.exposure.step


def begin(subject: Subject, exposure: Exposure) -> Frame:
    """A frame on which no stage has worked yet."""
    none = np.zeros((0, 0), dtype=np.float32)
    line = np.zeros(0, dtype=np.float32)
    return Frame(
        subject, exposure, none, none, none, line, line, np.zeros(subject.soft.shape, dtype=np.uint16)
    )
