"""What an X-ray machine is: tube, grid, panel and display, in the units of data sheets.

Every number is a constant of the machine on the day; `site` draws machines and exposures, `history` lets them age.
No vendor's values are known or implied: ranges come from the papers named, choices within them are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from common.errors import DataError

QUANTA_PER_MM2_UGY: Final = 30174.0
"""Quanta per mm2 and microgray of air kerma in the RQA5 beam: IEC 62220-1, table 2."""

JPEG_BITS: Final = 8


@dataclass(frozen=True)
class Tube:
    """Where X-rays come from."""

    target_angle_deg: float
    """Between the anode's face and the central ray: 11 to 16 in chest work."""
    target_depth: float
    """Attenuation (mu times d) in the target between where photons arise and its face: tungsten at 60 keV has 7.2 per mm
    (NISTIR 5632), electrons of 100 keV go 5 to 15 micrometres deep."""
    anode_down: bool
    """Whether the anode points to the image's foot (intensity falls downwards) or to its head."""
    focal_mm: float
    """Side of the focal spot: 0.6 to 1.3 (IEC 60336)."""


@dataclass(frozen=True)
class Grid:
    """What stands before the panel against scatter: IEC 60627 defines all of these but the last two."""

    primary: float
    """Share of primary radiation that passes, 0.6 to 0.75."""
    scatter: float
    """Share of scattered radiation that passes, 0.05 to 0.25."""
    lines_per_mm: float
    """4 to 7 for stationary grids."""
    lead_share: float
    """Thickness of a strip by the distance of two."""
    residue: float
    """What software and movement leave of the lines: 1 nothing done, 0 all gone."""


@dataclass(frozen=True)
class Panel:
    """The image receptor."""

    element_mm: float
    """Side of a native element: 0.10 to 0.20 in chest work."""
    fill: float
    """Share of the element's side that is sensitive; its square is the fill factor."""
    absorption: float
    """Share of quanta absorbed."""
    swank: float
    """Swank's factor, 0.5 to 1: absorption times this is DQE at frequency zero (Swank, J Appl Phys 44, 1973)."""
    blur_mm: float
    """Standard deviation of the light's core."""
    glare: float
    """Share of the light in the wide part."""
    glare_mm: float
    """Standard deviation of the wide part."""
    electrons: float
    """Electrons for one absorbed quantum."""
    electronic: float
    """Standard deviation of readout noise in electrons of one element: 600 to 3000 in flat panels."""
    gain_spread: float
    """Relative standard deviation of what flat-field correction leaves, element by element."""
    offset_spread: float
    """Standard deviation of what dark correction leaves, in electrons."""
    line_noise: float
    """Relative standard deviation of gain from row to row, new in every exposure (laser of a plate reader)."""
    dead_ppm: float
    """Elements that do not answer, in a million."""
    dead_lines: float
    """Lines that do not answer; each is a row or a column."""
    unmapped: float
    """Share of those that the correction map does not know: they show."""

    @property
    def dqe0(self) -> float:
        """Detective quantum efficiency at frequency zero without electronic noise: fill^2 absorption swank."""
        return self.fill**2 * self.absorption * self.swank


@dataclass(frozen=True)
class Window:
    """A window preset on display values 0 to 1 (DICOM PS3.3 C.11.2.1.2)."""

    name: str
    centre: float
    width: float


@dataclass(frozen=True)
class Display:
    """What software makes of exposures."""

    anchor: float
    """Where the median of the exposed field falls: 0 black, 1 white."""
    gamma: float
    """Slope of the characteristic curve at its middle, display values per decade of exposure: 0.4 to 1."""
    bend: float
    """How strongly the curve bends to its ends: 0 is a straight line, 1 a full sigmoid."""
    edge_gain: float
    """Unsharp mask: 0 nothing, 1 doubles the finest detail."""
    edge_mm: float
    """Standard deviation of the unsharp mask, on the panel."""
    windows: tuple[Window, ...]
    bits: int
    shutter: bool
    """Whether the region outside the collimated field is painted black."""
    compression: Literal["none", "jpeg", "jpeg2000"] = "none"
    strength: tuple[float, ...] = ()
    """Qualities (jpeg, 1 to 100) or ratios (jpeg2000, to one) that its exports use."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise DataError("display", f"{self.bits} bits cannot be written", "Use 2 to 16")
        if self.compression == "jpeg" and self.bits != JPEG_BITS:
            raise DataError("display", "baseline JPEG holds 8 bits", "Use 8 bits or jpeg2000")
        if (self.compression == "none") == bool(self.strength) or not self.windows:
            raise DataError("display", "needs a window, and a strength where it compresses", "Give both")


@dataclass(frozen=True)
class Machine:
    """One machine on one day."""

    name: str
    manufacturer: str
    model: str
    sop: Literal["DX", "CR"]
    tube: Tube
    grid: Grid | None
    panel: Panel
    display: Display
    pattern: int
    """Seed of what is fixed in this machine: gain, offset and dead elements. A calibration gives another."""
