"""The chain of a CT slice; `scan` runs it.

Not a projection and reconstruction of each image, which takes seconds: what filtered back-projection does to signal and noise
is applied to the slice. The noise of every ray comes from line integrals through this very patient, and keeps its direction
in six sectors, so that shoulders and arms streak as they do. Tested against a real back-projection. What that leaves out:
beam hardening, metal, rings, scatter, helical windmills, and aliasing of rays and views.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

from simulations.phantoms.trunk import Trunk
from simulations.scanners.ct.settings import CtAcquisition, Kernel
from simulations.scanners.stages import FloatMap, Stage, chance, run_stages

MU_WATER_PER_MM: Final = 0.0206
"""At 60 keV, the mean of a filtered 120 kV beam: NISTIR 5632."""
MU_PER_KV: Final = -0.0020
"""Relative change per kilovolt around 120: as in `simulations.scanners.chain`."""
OUTPUT_POWER: Final = 2.5
"""A tube's output behind a patient rises by about this power of its voltage."""
COARSE: Final = 64
"""Pixels a side on which rays are traced: their noise is smooth over centimetres."""
SECTORS: Final = 6
ANGLES: Final = 24
"""Directions in which rays are traced, four for each sector."""
FEWEST: Final = 0.5


@dataclass(eq=False)
class Frame:
    """What the stages hand on."""

    trunk: Trunk
    acquisition: CtAcquisition
    image: FloatMap
    """Hounsfield units until `digits`."""
    unsure: FloatMap
    """[sectors, 64, 64]: standard deviation of ray integrals, from stage `dose` on; dimensionless."""
    pixels: npt.NDArray[np.uint16]


def thickness(frame: Frame) -> None:
    """A thick slice is the mean of thin ones: small things fade.

    Formula: sum w_i HU_i / sum w_i, w 1 within (1 - p) T / 2 of the middle, falling evenly to 0 at (1 + p) T / 2; T is its width at half height.
    Unit: Hounsfield units.
    Source: slice sensitivity profile (IEC 61223-3-5); a trapezoid is our choice.
    """
    made, trunk = frame.acquisition, frame.trunk
    count = trunk.hounsfield.shape[0]
    weights = slice_profile(count, trunk.spacing_mm, made.thickness_mm, made.profile)
    used = np.flatnonzero(weights)
    thin = trunk.hounsfield[used[0] : used[-1] + 1]
    flat = weights[used[0] : used[-1] + 1] @ thin.reshape(len(thin), -1)
    frame.image = flat.reshape(trunk.hounsfield.shape[1:])


def slice_profile(count: int, spacing_mm: float, thickness_mm: float, profile: float) -> FloatMap:
    """Weights of thin slices, float32 [count], of sum one; the middle one alone when all others weigh nothing."""
    away = np.abs((np.arange(count) - (count - 1) / 2) * spacing_mm)
    slope = max(profile * thickness_mm, 1e-6)
    weights = np.clip(((1 + profile) * thickness_mm / 2 - away) / slope, 0, 1)
    if not weights.any():
        weights[count // 2] = 1
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def dose(frame: Frame) -> None:
    """How many quanta arrive on each ray decides how sure its integral is.

    Formula: N0 = q mAs (kVp / 120)^2.5 d T / views, N = N0 exp(-p), var p = 1 / N + e^2 / N^2, traced on 64 x 64 pixels in 24
    directions and kept as the mean of four in each of six sectors, each seen at the pixel that its rays cross.
    Unit: standard deviation of a line integral, dimensionless.
    Source: Poisson counting through the logarithm; electronic noise as in Whiting et al., Med Phys 33 (2006).
    """
    made = frame.acquisition
    start = made.quanta_per_mas * made.mas * (made.kvp / 120) ** OUTPUT_POWER
    start *= made.ray_mm * made.thickness_mm / made.views
    mu = MU_WATER_PER_MM * (1 + MU_PER_KV * (made.kvp - 120))
    size = frame.image.shape[0]
    wide = frame.trunk.pitch_mm * size / COARSE
    small = cv2.resize(frame.image, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    water = np.maximum(1 + small / 1000, 0) * np.float32(mu * wide)
    sums = np.zeros((SECTORS, COARSE, COARSE), dtype=np.float32)
    for number, (there, back) in enumerate(_turns()):
        rays = cv2.warpAffine(water, there, (COARSE, COARSE)).sum(axis=0)
        counts = np.maximum(start * np.exp(-rays), FEWEST)
        sure = (1 / counts + (made.electronic / counts) ** 2).astype(np.float32)
        # Rays run down the columns of the turned slice: every pixel of a column is on the same ray.
        spread = np.broadcast_to(sure, (COARSE, COARSE))
        sums[number // (ANGLES // SECTORS)] += cv2.warpAffine(
            np.ascontiguousarray(spread), back, (COARSE, COARSE), borderMode=cv2.BORDER_REPLICATE
        )
    sums *= np.float32(SECTORS / ANGLES)
    frame.unsure = np.sqrt(sums)


@lru_cache(maxsize=1)
def _turns() -> tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], ...]:
    """For each direction, the turn that stands its rays upright, and the turn back."""
    middle = ((COARSE - 1) / 2, (COARSE - 1) / 2)
    turns = []
    for number in range(ANGLES):
        angle = 180 / ANGLES * (number + 0.5)
        turns.append(
            (cv2.getRotationMatrix2D(middle, angle, 1.0), cv2.getRotationMatrix2D(middle, -angle, 1.0))
        )
    return tuple(turns)


def kernel(frame: Frame) -> None:
    """Reconstruction blurs or sharpens, and colours the noise of the rays.

    Formula: signal by M(f) = s(f d) K(f), K = (1 + b sin(pi f / c)^2) (1 + cos(pi f / c)) / 2 below the cutoff c, 0 above; noise in mu of
    power pi d var(p) f K(f)^2 / views in the direction of its rays, by 1000 / mu_water in HU.
    Unit: Hounsfield units.
    Source: Riederer, Pelc & Chesler, Phys Med Biol 23 (1978); Hanson, Med Phys 6 (1979). K is a Hann window with a rise, our choice.
    """
    made, size = frame.acquisition, frame.image.shape[0]
    signal, noise = filters(size, frame.trunk.pitch_mm, made.kernel, made.ray_mm)
    frame.image = fft.irfft2(fft.rfft2(frame.image) * signal, s=frame.image.shape)
    white = fft.rfft2(chance(made.seed, "rays").standard_normal((size, size), dtype=np.float32))
    white *= noise
    mu = MU_WATER_PER_MM * (1 + MU_PER_KV * (made.kvp - 120))
    noise_hu = np.float32(1000 / mu / np.sqrt(made.views))
    for sector, unsure in zip(_sectors(size), frame.unsure, strict=True):
        local = cv2.resize(unsure * noise_hu, (size, size))
        local *= fft.irfft2(white * sector, s=(size, size))
        frame.image += local


@lru_cache(maxsize=8)
def filters(size: int, pitch_mm: float, chosen: Kernel, ray_mm: float) -> tuple[FloatMap, FloatMap]:
    """Transfer of the signal, and amplitude of the noise for rays of unit variance and one view; [size, size // 2 + 1]."""
    rows, columns = np.fft.fftfreq(size, pitch_mm)[:, None], np.fft.rfftfreq(size, pitch_mm)[None, :]
    radius = np.hypot(rows, columns)
    share = np.minimum(radius / chosen.cutoff_per_mm, 1)
    window = 0.5 * (1 + np.cos(np.pi * share)) * (1 + chosen.boost * np.sin(np.pi * share) ** 2)
    power = np.pi * ray_mm * radius * window**2
    return (np.sinc(radius * ray_mm) * window).astype(np.float32), (np.sqrt(power) / pitch_mm).astype(
        np.float32
    )


@lru_cache(maxsize=4)
def _sectors(size: int) -> FloatMap:
    """Shares of each direction of frequency, [sectors, size, size // 2 + 1]; they sum to one.

    All sectors share one noise, so amplitudes add: with rays equally sure in all directions nothing is left of them.
    A view at angle t has rays along t and speaks about frequencies across them.
    """
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    # `_turns` turns by `angle` anticlockwise: rays that end upright ran at -angle from upright, frequencies at -angle from level.
    angle = np.arctan2(-rows, columns)
    middle = np.pi * (np.arange(SECTORS) + 0.5) / SECTORS
    away = (-angle[None] - middle[:, None, None] + np.pi / 2) % np.pi - np.pi / 2
    weight = np.cos(np.clip(np.abs(away) * SECTORS / 2, 0, np.pi / 2)) ** 2
    weight /= weight.sum(axis=0, keepdims=True)
    return np.asarray(weight, dtype=np.float32)


def calibration(frame: Frame) -> None:
    """Water does not read exactly 0.

    Formula: HU + w.
    Unit: Hounsfield units.
    Source: tolerance of +-5 HU in the ACR CT quality control manual (2017).
    """
    frame.image = frame.image + np.float32(frame.acquisition.water_hu)


def digits(frame: Frame) -> None:
    """Whole numbers above the intercept.

    Formula: clip(round(HU) + 1024, 0, 2^bits - 1).
    Unit: stored value, uint16.
    Source: DICOM PS3.3 C.8.2.1 (rescale intercept).
    """
    made = frame.acquisition
    frame.image = np.clip(np.rint(frame.image) + np.float32(made.intercept), 0, (1 << made.bits) - 1)
    frame.pixels = frame.image.astype(np.uint16)


STAGES: Final[tuple[Stage[Frame], ...]] = (
    Stage("thickness", thickness),
    Stage("dose", dose),
    Stage("kernel", kernel),
    Stage("calibration", calibration),
    Stage("digits", digits),
)


def scan(trunk: Trunk, acquisition: CtAcquisition) -> npt.NDArray[np.uint16]:
    """The slice: uint16 [size, size], Hounsfield units plus the intercept. The trunk is not changed."""
    return scan_until(trunk, acquisition, None).pixels


def scan_until(trunk: Trunk, acquisition: CtAcquisition, stage: str | None) -> Frame:
    """The frame as this stage left it.

    Raises:
        DataError: when the chain has no such stage.
    """
    size = trunk.hounsfield.shape[1:]
    nothing = np.zeros((0, 0, 0), dtype=np.float32)
    frame = Frame(trunk, acquisition, np.zeros(size, np.float32), nothing, np.zeros(size, np.uint16))
    return run_stages(STAGES, frame, stage)
