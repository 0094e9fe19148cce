"""What a scanner is (constants of the machine) and what one exposure on it was (drawn settings).

Scale. A real detector of 2500 x 2500 elements would be averaged to the 256 x 256 pixels we write, and
noise and blur would vanish in the average. Each of our pixels therefore behaves as **one native detector
element** of side `element_mm` (noise, blur), while it covers `pitch_mm` of the chest (anatomy, scatter).
Blur is given in elements, scatter and collimation in millimetres of the chest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

QUANTA_PER_MM2_UGY: Final = 30174.0
"""Quanta per mm2 and microgray air kerma of the RQA5 beam: IEC 62220-1, table 2."""


@dataclass(frozen=True)
class Curve:
    """The characteristic curve: from log10 of exposure to a display value between 0 and 1."""

    latitude: float
    """Decades of exposure from black to white. A film screen has about 1.5, a digital detector 3 to 4;
    presentation images are windowed to between the two."""
    anchor: float
    """Where the median of the exposed field falls: 0 black, 1 white."""
    contrast: float
    """Slope of the sigmoid around the middle; 0 is a straight line (DICOM PS3.3 C.11.2.1.3.1 SIGMOID)."""


@dataclass(frozen=True)
class Detector:
    """The image receptor."""

    element_mm: float
    """Side of a native element: 0.10 to 0.20 mm in chest work."""
    efficiency: float
    """Detective quantum efficiency at low frequency: 0.2 to 0.35 for storage phosphor, 0.3 to 0.5 for
    selenium, 0.6 to 0.7 for caesium iodide (Samei & Flynn, Med Phys 30, 2003)."""
    blur_elements: float
    """Standard deviation of the light's spread, in elements: correlates the quantum noise."""
    electronic: float
    """Standard deviation of readout noise, in detected quanta per element."""
    gain_spread: float
    """Relative standard deviation of the residual gain pattern, fixed for each machine."""
    line_noise: float
    """Relative standard deviation of row-to-row gain (laser power of a plate reader)."""
    grid_lines: float
    """Relative amplitude of what remains of the anti-scatter grid's lines."""
    grid_period: float
    """Period of those lines after sampling, in pixels: aliasing makes it longer than the grid's."""


@dataclass(frozen=True)
class Scanner:
    """One kind of machine, its habits included."""

    name: str
    manufacturer: str
    model: str
    sop: Literal["DX", "CR"]
    kvp: tuple[float, float]
    open_kerma_ugy: float
    """Air kerma at the detector without patient, microgray: about 1/exp(-2) times the 2 to 5 behind a lung."""
    dose_spread: float
    """Standard deviation of the natural logarithm of dose from exposure to exposure."""
    heel: float
    """Relative fall of the beam from the cathode's to the anode's edge; negative turns the tube round."""
    clutter: float
    """Line integral of what lies in the beam beside the patient (mattress, bedding, gown): this times
    max(0, 0.7 + m), where m is noise of unit variance with the f^-3 power of anatomy."""
    scatter_to_primary: float
    """Mean scatter by mean primary behind the patient. Chest without grid 1 to 3, with grid 0.2 to 0.5 (Niklason et al., Med Phys 8,
    1981); local ratios behind the mediastinum are several times higher."""
    scatter_mm: float
    """Standard deviation of the scatter kernel at the detector."""
    motion_elements: float
    """Focal spot and motion, standard deviation in elements: before the quanta are counted."""
    detector: Detector
    pitch_mm: float
    """What one written pixel covers at the detector."""
    curve: Curve
    edge: tuple[float, float]
    """Unsharp mask: gain, and standard deviation in pixels."""
    bits: int
    shutter: bool
    """Whether the region outside the collimated field is painted black, as DX systems do."""
    field_mm: tuple[float, float]
    """Smallest and largest margin between the image's border and the collimated field."""
    marker: Literal["L", "R"]
    marker_mm: float
    """Height of the lead letter."""


@dataclass(frozen=True)
class Settings:
    """One exposure: everything that `apply` needs beside the anatomy."""

    scanner: Scanner
    kvp: float
    kerma_ugy: float
    scatter_to_primary: float
    field_mm: tuple[float, float, float, float]
    """Margins of the collimated field: left, right, top, bottom."""
    marker_mm: tuple[float, float]
    """Centre of the letter, from the image's top corner on its side."""
    noise_seed: int

    @property
    def exposure_mas(self) -> float:
        """Tube current times time, in proportion to dose: 1 mAs gives about 3 microgray at 180 cm."""
        return self.kerma_ugy / 3.0


def draw(rng: np.random.Generator, scanner: Scanner) -> Settings:
    """Draw the settings of one exposure from the habits of this machine's room."""
    low, high = scanner.field_mm
    left, right, top, bottom = (float(m) for m in rng.uniform(low, high, 4))
    return Settings(
        scanner=scanner,
        kvp=float(np.round(rng.uniform(*scanner.kvp))),
        kerma_ugy=float(scanner.open_kerma_ugy * np.exp(rng.normal(0, scanner.dose_spread))),
        scatter_to_primary=float(scanner.scatter_to_primary * np.exp(rng.normal(0, 0.12))),
        field_mm=(left, right, top, bottom),
        marker_mm=(float(rng.uniform(22, 46)), float(rng.uniform(26, 60))),
        noise_seed=int(rng.integers(2**63)),
    )
