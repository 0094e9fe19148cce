"""One CT acquisition, and the sites from which acquisitions are drawn. Makers are invented; no vendor's values are known."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from simulations.scanners.spread import LogNormal, Normal, Spread, Uniform, near, scaled


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: the window on the ramp."""

    name: str
    cutoff_per_mm: float
    """Where the window reaches zero: 0.5 to 0.8 soft, 0.9 to 1.4 lung and bone."""
    boost: float
    """How far middle frequencies are raised: 0 a plain Hann window, 1 to 3 for sharp kernels."""


SOFT: Final = Kernel("soft", 0.68, 0.0)
STANDARD: Final = Kernel("standard", 0.85, 0.3)
LUNG: Final = Kernel("lung", 1.1, 1.6)


@dataclass(frozen=True)
class CtAcquisition:
    """Everything `scan` needs beside the trunk. The same record gives the same bits."""

    site: str
    manufacturer: str
    model: str
    kvp: float
    mas: float
    """Tube current times time of one rotation."""
    views: int
    ray_mm: float
    """Distance of rays at the axis, which is also the width they collect over."""
    quanta_per_mas: float
    """Quanta per mm2 at the axis and mAs at 120 kV without patient, detected."""
    electronic: float
    """Readout noise of one ray, in quanta."""
    thickness_mm: float
    profile: float
    """Share of the slice's sensitivity that falls off on its edges: 0 a box, 1 a triangle."""
    kernel: Kernel
    water_hu: float
    """What water reads: calibration allows +-5 (ACR CT quality control manual, 2017)."""
    intercept: int
    """Stored value of -intercept Hounsfield units is 0."""
    bits: int
    seed: int


@dataclass(frozen=True)
class CtSite:
    """One scanner and its protocol."""

    name: str
    manufacturer: str
    model: str
    kvps: tuple[float, ...]
    mas: Spread
    views: int
    ray_mm: float
    quanta_per_mas: float
    electronic: float
    thickness_mm: float
    profile: float
    kernels: tuple[Kernel, ...]
    water_hu: Spread
    bits: int = 12


def draw(rng: np.random.Generator, site: CtSite) -> CtAcquisition:
    """Draw one acquisition of this site and record it."""
    return CtAcquisition(
        site=site.name,
        manufacturer=site.manufacturer,
        model=site.model,
        kvp=site.kvps[int(rng.integers(len(site.kvps)))],
        mas=site.mas.draw(rng),
        views=site.views,
        ray_mm=site.ray_mm,
        quanta_per_mas=site.quanta_per_mas,
        electronic=site.electronic,
        thickness_mm=site.thickness_mm,
        profile=site.profile,
        kernel=site.kernels[int(rng.integers(len(site.kernels)))],
        water_hu=site.water_hu.draw(rng),
        intercept=1024,
        bits=site.bits,
        seed=int(rng.integers(2**63)),
    )


def another_site(name: str, model: CtSite, seed: int) -> CtSite:
    """A further scanner of the same kind: dose, readout noise and kernels drawn around the model's, a tenth apart; our choice."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    sharper = near(rng, 1.0, 0.04)
    return replace(
        model,
        name=name,
        mas=scaled(model.mas, near(rng, 1.0, 0.1)),
        electronic=near(rng, model.electronic, 0.1),
        kernels=tuple(replace(one, cutoff_per_mm=one.cutoff_per_mm * sharper) for one in model.kernels),
        water_hu=Normal(float(rng.normal(0, 1.5)), 1.0),
    )


_THICK: Final = CtSite(
    name="thick-soft",
    manufacturer="Grus Tomography",
    model="Ring 16",
    kvps=(120.0,),
    mas=LogNormal(160.0, 0.15),
    views=900,
    ray_mm=0.7,
    quanta_per_mas=1.5e6,
    electronic=12.0,
    thickness_mm=5.0,
    profile=0.4,
    kernels=(SOFT,),
    water_hu=Normal(1.0, 1.0),
)
_THIN: Final = CtSite(
    name="thin-lung",
    manufacturer="Heron Medical",
    model="Spiral 64",
    kvps=(120.0,),
    mas=LogNormal(120.0, 0.15),
    views=1150,
    ray_mm=0.55,
    quanta_per_mas=2.0e6,
    electronic=8.0,
    thickness_mm=1.25,
    profile=0.8,
    kernels=(LUNG,),
    water_hu=Normal(-1.5, 1.0),
)
_LOW: Final = CtSite(
    name="low-dose",
    manufacturer="Grus Tomography",
    model="Screen 32",
    kvps=(100.0, 120.0),
    mas=Uniform(18.0, 32.0),
    views=900,
    ray_mm=0.65,
    quanta_per_mas=1.5e6,
    electronic=14.0,
    thickness_mm=2.5,
    profile=0.5,
    kernels=(STANDARD, SOFT),
    water_hu=Normal(0.0, 1.5),
)

SITES: Final[dict[str, CtSite]] = {s.name: s for s in (_THICK, _THIN, _LOW)}
