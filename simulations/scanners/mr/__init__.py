"""Magnetic resonance, stage by stage in physical order: from tissues to stored values.

`draw` draws one acquisition from a site's distributions; `acquire` is a function of head and acquisition.
"""

from simulations.scanners.mr.chain import STAGES, acquire, acquire_until
from simulations.scanners.mr.real import head_from_image
from simulations.scanners.mr.settings import SITES, Acquisition, MrSite, Sequence, another_site, draw

__all__ = [
    "SITES",
    "STAGES",
    "Acquisition",
    "MrSite",
    "Sequence",
    "acquire",
    "acquire_until",
    "another_site",
    "draw",
    "head_from_image",
]
