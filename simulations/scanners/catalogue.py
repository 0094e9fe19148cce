"""The machines of the virtual federation. Makers and models are invented.

`dorado-mobile` is planted weak: a bedside unit without grid, at low dose, on a coarse and leaky plate,
with motion. Its strengths are the constants named WEAK_*: they decide how far a finding drowns.
"""

from __future__ import annotations

from typing import Final

from simulations.scanners.scanner import Curve, Detector, Scanner

WEAK: Final = "dorado-mobile"
"""The machine on which findings drown."""

WEAK_KERMA_UGY: Final = 1.8
"""An eighth of the others': the automatic exposure control of a wall stand is missing at the bed."""
WEAK_SCATTER: Final = 2.2
"""No grid and a short distance: the upper half of Niklason's range."""
WEAK_CLUTTER: Final = 0.8
"""Mattress, blankets, a wet gown and cushions, folded: on average 2.5 cm of water. Noise alone does not hide a lobe."""
WEAK_MOTION_ELEMENTS: Final = 2.2
"""Breathing during a long exposure of a small generator."""
WEAK_EFFICIENCY: Final = 0.18
"""An aged storage phosphor."""

_ASTER = Scanner(
    name="aster-dr",
    manufacturer="Aster Imaging",
    model="DR-1",
    sop="DX",
    kvp=(117, 125),
    open_kerma_ugy=14.0,
    dose_spread=0.15,
    heel=0.10,
    clutter=0.0,
    scatter_to_primary=0.30,
    scatter_mm=42.0,
    motion_elements=0.30,
    detector=Detector(0.143, 0.45, 0.25, 3.0, 0.004, 0.0, 0.006, 5.3),
    pitch_mm=1.50,
    curve=Curve(latitude=1.9, anchor=0.52, contrast=3.0),
    edge=(0.25, 2.5),
    bits=14,
    shutter=True,
    field_mm=(4, 22),
    marker="L",
    marker_mm=20.0,
)
_BOREALIS = Scanner(
    name="borealis-cr",
    manufacturer="Borealis Medical",
    model="Plate 20",
    sop="CR",
    kvp=(100, 115),
    open_kerma_ugy=16.0,
    dose_spread=0.25,
    heel=0.16,
    clutter=0.0,
    scatter_to_primary=0.55,
    scatter_mm=48.0,
    motion_elements=0.55,
    detector=Detector(0.175, 0.28, 0.80, 6.0, 0.006, 0.012, 0.0, 6.0),
    pitch_mm=1.62,
    curve=Curve(latitude=2.3, anchor=0.58, contrast=0.0),
    edge=(0.0, 2.0),
    bits=10,
    shutter=False,
    field_mm=(0, 14),
    marker="R",
    marker_mm=26.0,
)
_CYGNUS = Scanner(
    name="cygnus-dr",
    manufacturer="Cygnus Radiography",
    model="Flat 400",
    sop="DX",
    kvp=(121, 133),
    open_kerma_ugy=10.0,
    dose_spread=0.12,
    heel=-0.08,
    clutter=0.0,
    scatter_to_primary=0.38,
    scatter_mm=45.0,
    motion_elements=0.35,
    detector=Detector(0.148, 0.65, 0.55, 4.0, 0.003, 0.0, 0.0, 6.0),
    pitch_mm=1.42,
    curve=Curve(latitude=1.7, anchor=0.46, contrast=5.5),
    edge=(0.9, 2.0),
    bits=12,
    shutter=True,
    field_mm=(0, 8),
    marker="R",
    marker_mm=15.0,
)
_DORADO = Scanner(
    name=WEAK,
    manufacturer="Dorado Systems",
    model="Mobile M5",
    sop="DX",
    kvp=(80, 95),
    open_kerma_ugy=WEAK_KERMA_UGY,
    dose_spread=0.30,
    heel=0.24,
    clutter=WEAK_CLUTTER,
    scatter_to_primary=WEAK_SCATTER,
    scatter_mm=55.0,
    motion_elements=WEAK_MOTION_ELEMENTS,
    detector=Detector(0.20, WEAK_EFFICIENCY, 1.50, 1.0, 0.010, 0.004, 0.0, 6.0),
    pitch_mm=1.58,
    curve=Curve(latitude=1.5, anchor=0.50, contrast=2.0),
    edge=(0.0, 2.0),
    bits=12,
    shutter=False,
    field_mm=(2, 26),
    marker="L",
    marker_mm=28.0,
)

SCANNERS: Final[dict[str, Scanner]] = {s.name: s for s in (_ASTER, _BOREALIS, _CYGNUS, _DORADO)}
