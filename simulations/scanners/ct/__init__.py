"""Computed tomography, stage by stage: from thin slices in Hounsfield units to stored values.

`draw` draws one acquisition from a site's distributions; `scan` is a function of trunk and acquisition.
"""

from simulations.scanners.ct.chain import STAGES, scan, scan_until
from simulations.scanners.ct.real import trunk_from_slices
from simulations.scanners.ct.settings import SITES, CtAcquisition, CtSite, Kernel, another_site, draw

__all__ = [
    "SITES",
    "STAGES",
    "CtAcquisition",
    "CtSite",
    "Kernel",
    "another_site",
    "draw",
    "scan",
    "scan_until",
    "trunk_from_slices",
]
