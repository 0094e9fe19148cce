"""Virtual X-ray equipment: from line integrals to pixels, stage by stage in physical order.

`draw` draws one exposure's settings and records them; `apply` is a function of anatomy and settings.
All makers and models are invented; no vendor's values are known or implied.
"""

from simulations.scanners.catalogue import SCANNERS, WEAK
from simulations.scanners.chain import apply, on_detector
from simulations.scanners.scanner import Curve, Detector, Scanner, Settings, draw

__all__ = [
    "SCANNERS",
    "WEAK",
    "Curve",
    "Detector",
    "Scanner",
    "Settings",
    "apply",
    "draw",
    "on_detector",
]
