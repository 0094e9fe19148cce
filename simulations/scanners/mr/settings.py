"""One acquisition, and the sites from which acquisitions are drawn. Makers are invented; no vendor's values are known."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from simulations.scanners.spread import LogNormal, Normal, Spread, Uniform, near, scaled

TERMS: Final = 9
"""Products of Legendre polynomials of total order 1 to 3."""


@dataclass(frozen=True)
class Sequence:
    """Timing of a spin echo, with inversion where `inversion_ms` is above 0."""

    name: str
    repetition_ms: float
    echo_ms: float
    inversion_ms: float = 0.0


T1_WEIGHTED: Final = Sequence("T1 spin echo", 550.0, 12.0)
T2_WEIGHTED: Final = Sequence("T2 spin echo", 4000.0, 95.0)
FLAIR: Final = Sequence("FLAIR", 9000.0, 110.0, 2500.0)


@dataclass(frozen=True)
class Acquisition:
    """Everything `acquire` needs beside the head. The same record gives the same bits."""

    site: str
    manufacturer: str
    model: str
    field_t: float
    sequence: Sequence
    matrix: tuple[int, int]
    """Lines of phase encoding (rows) and samples of readout (columns)."""
    thickness_mm: float
    averages: int
    bandwidth_hz: float
    """Of one pixel along the readout."""
    noise: float
    """Standard deviation of real and imaginary part, by the signal of fully relaxed water, in a voxel of 1 x 1 x 5 mm at 1.5 T,
    256 lines of 256, one average, 130 Hz."""
    bias: tuple[float, ...]
    """Coefficients of the logarithm of the coil's sensitivity: `TERMS` of them."""
    sway_mm: float
    """Amplitude of a periodic movement along the phase encoding."""
    sway_cycles: float
    """How often it comes back during the acquisition."""
    jump_mm: tuple[float, float]
    """One sudden movement: along phase encoding and readout."""
    jump_at: float
    """When, as a share of the acquisition."""
    spikes: tuple[tuple[int, int, float], ...]
    """Each: line, sample (from the middle of k-space), and size by the largest true sample."""
    apodisation: float
    """Share of k-space's radius over which a Tukey window falls: 0 none, 1 a Hann window."""
    white_quantile: float
    """Which quantile of the image is stored as this share of full scale (next)."""
    white_level: float
    bits: int
    seed: int


@dataclass(frozen=True)
class MrSite:
    """One magnet and its habits."""

    name: str
    manufacturer: str
    model: str
    field_t: float
    sequence: Sequence
    matrices: tuple[tuple[int, int], ...]
    thickness_mm: float
    averages: int
    bandwidth_hz: float
    noise: Spread
    bias: Spread
    """Standard deviation of each coefficient, by its order."""
    sway_mm: Spread
    jump_share: float
    """Share of acquisitions in which a patient moves once."""
    jump_mm: Spread
    spike_share: float
    """Share of acquisitions with arcing."""
    apodisation: float
    white_level: Spread
    bits: int = 12


def draw(rng: np.random.Generator, site: MrSite, size: int = 512) -> Acquisition:
    """Draw one acquisition of this site and record it.

    Args:
        rng: chance; the acquisition records what came of it.
        site: the magnet and its habits.
        size: pixels a side of the head; a matrix is never finer.
    """
    lines, samples = site.matrices[int(rng.integers(len(site.matrices)))]
    matrix = (min(lines, size), min(samples, size))
    strength = abs(site.bias.draw(rng))
    orders = np.array([i + j for i in range(4) for j in range(4) if 1 <= i + j <= 3])
    jumps, arcs = rng.random() < site.jump_share, rng.random() < site.spike_share
    jump = (site.jump_mm.draw(rng), site.jump_mm.draw(rng))
    places = [
        (
            int(rng.integers(8, matrix[0] // 3)),
            int(rng.integers(-matrix[1] // 3, matrix[1] // 3)),
            float(rng.uniform(0.02, 0.12)),
        )
        for _ in range(int(rng.integers(1, 3)))
    ]
    return Acquisition(
        site=site.name,
        manufacturer=site.manufacturer,
        model=site.model,
        field_t=site.field_t,
        sequence=site.sequence,
        matrix=matrix,
        thickness_mm=site.thickness_mm,
        averages=site.averages,
        bandwidth_hz=site.bandwidth_hz,
        noise=site.noise.draw(rng),
        bias=tuple(float(v) for v in strength * rng.standard_normal(TERMS) / orders),
        sway_mm=abs(site.sway_mm.draw(rng)),
        sway_cycles=float(rng.uniform(20, 60)),
        jump_mm=jump if jumps else (0.0, 0.0),
        jump_at=float(rng.uniform(0.3, 0.8)),
        spikes=tuple(places) if arcs else (),
        apodisation=site.apodisation,
        white_quantile=0.995,
        white_level=site.white_level.draw(rng),
        bits=site.bits,
        seed=int(rng.integers(2**63)),
    )


def another_site(name: str, model: MrSite, seed: int) -> MrSite:
    """A further magnet of the same kind: noise and coil drawn around the model's, a tenth and a fifth apart; our choice."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return replace(
        model,
        name=name,
        noise=scaled(model.noise, near(rng, 1.0, 0.1)),
        bias=scaled(model.bias, near(rng, 1.0, 0.2)),
        white_level=scaled(model.white_level, near(rng, 1.0, 0.05)),
    )


_LOW: Final = MrSite(
    name="low-field",
    manufacturer="Ember Magnetics",
    model="Open 05",
    field_t=0.5,
    sequence=T2_WEIGHTED,
    matrices=((192, 256),),
    thickness_mm=6.0,
    averages=2,
    bandwidth_hz=80.0,
    noise=LogNormal(0.012, 0.15),
    bias=Normal(0.10, 0.02),
    sway_mm=LogNormal(0.25, 0.5),
    jump_share=0.12,
    jump_mm=Normal(0.0, 1.5),
    spike_share=0.03,
    apodisation=0.5,
    white_level=Uniform(0.72, 0.85),
)
_MIDDLE: Final = MrSite(
    name="middle-field",
    manufacturer="Fennec Resonance",
    model="Whole 15",
    field_t=1.5,
    sequence=T2_WEIGHTED,
    matrices=((256, 256), (256, 320)),
    thickness_mm=5.0,
    averages=1,
    bandwidth_hz=130.0,
    noise=LogNormal(0.012, 0.1),
    bias=Normal(0.14, 0.03),
    sway_mm=LogNormal(0.10, 0.5),
    jump_share=0.08,
    jump_mm=Normal(0.0, 1.2),
    spike_share=0.02,
    apodisation=0.0,
    white_level=Uniform(0.60, 0.70),
)
_HIGH: Final = MrSite(
    name="high-field",
    manufacturer="Ember Magnetics",
    model="Head 30",
    field_t=3.0,
    sequence=T2_WEIGHTED,
    matrices=((384, 384), (320, 384)),
    thickness_mm=4.0,
    averages=1,
    bandwidth_hz=220.0,
    noise=LogNormal(0.012, 0.1),
    bias=Normal(0.28, 0.05),
    sway_mm=LogNormal(0.08, 0.5),
    jump_share=0.06,
    jump_mm=Normal(0.0, 1.0),
    spike_share=0.02,
    apodisation=0.15,
    white_level=Uniform(0.88, 1.0),
)

SITES: Final[dict[str, MrSite]] = {s.name: s for s in (_LOW, _MIDDLE, _HIGH)}
