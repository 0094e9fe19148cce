"""Fine structure of the lungs: a tree of vessels, and mottle with the spectrum of anatomy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

if TYPE_CHECKING:
    from simulations.phantoms.view import Exposure

FloatMap = npt.NDArray[np.float32]

SPECTRUM_EXPONENT: Final = 1.5
"""Amplitude falls as f^-1.5, power as f^-3: Bochud et al., Med Phys 26 (1999), anatomical background."""

TRUNKS: Final = 9
"""Segmental arteries on each side."""


@dataclass(frozen=True)
class Generation:
    """Vessels of one generation: diameter at the root, how many leave each, points along its axis."""

    calibre_mm: float
    branches: int
    samples: int


GENERATIONS: Final = (Generation(6.0, 3, 40), Generation(3.6, 2, 24), Generation(2.2, 0, 16))
"""Each generation has 0.6 of the diameter before it, as in the human pulmonary tree (Huang et al.,
J Appl Physiol 81, 1996)."""


@dataclass(frozen=True, eq=False)
class Vessels:
    """Points along every vessel: place in mm, and cross-section times the step to the next point."""

    x: FloatMap
    y: FloatMap
    volume_mm3: FloatMap


@dataclass(frozen=True, eq=False)
class Detail:
    """Vessel thickness in mm and mottle (mean 0, standard deviation 1), each [size, size] float32."""

    vessels_mm: FloatMap
    mottle: FloatMap

    def of(self, rows: slice) -> Detail:
        """The same of some rows."""
        return Detail(self.vessels_mm[rows], self.mottle[rows])


def detail(exposure: Exposure) -> Detail:
    """The patient's own fine structure: the same seed gives the same vessels in every image."""
    patient = exposure.patient
    vessels, mottled = _fine(patient.texture_seed, patient.scale, exposure.size)
    return Detail(_splat(vessels, exposure), mottled)


@lru_cache(maxsize=2)
def _fine(seed: int, scale: float, size: int) -> tuple[Vessels, FloatMap]:
    """Kept for the patient's next image."""
    rng = np.random.default_rng(seed)
    return _tree(rng, scale), mottle(rng, size)


def mottle(rng: np.random.Generator, size: int) -> FloatMap:
    """Noise with power f^-3 between 15 cm and the pixel, drawn at half size and interpolated."""
    half = size // 2
    spectrum = fft.rfft2(rng.standard_normal((half, half), dtype=np.float32)) * _falloff(half)
    field = fft.irfft2(spectrum, s=(half, half)).astype(np.float32)
    field *= np.float32(1 / field.std())
    grown = np.repeat(np.repeat(field, 2, axis=0), 2, axis=1)
    smooth: FloatMap = ndimage.uniform_filter(grown, 2)
    return smooth


@lru_cache(maxsize=4)
def _falloff(size: int) -> FloatMap:
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(rows, columns)
    lowest = 2.5 / size
    shape = np.maximum(radius, lowest) ** -SPECTRUM_EXPONENT
    shape[0, 0] = 0
    falloff: FloatMap = shape.astype(np.float32)
    return falloff


def _splat(vessels: Vessels, exposure: Exposure) -> FloatMap:
    """Thickness of all vessels in mm: their volume shared between the four nearest pixels."""
    size, pitch = exposure.size, exposure.pitch_mm
    columns, rows = exposure.to_pixels(vessels.x, vessels.y, 0.5)
    left, top = np.floor(columns), np.floor(rows)
    right, low = columns - left, rows - top
    inside = (left >= 0) & (left < size - 1) & (top >= 0) & (top < size - 1)
    index = (top * size + left)[inside].astype(np.int64)
    parts = ((1 - right) * (1 - low), right * (1 - low), (1 - right) * low, right * low)
    drawn = np.bincount(
        np.concatenate([index, index + 1, index + size, index + size + 1]),
        weights=np.concatenate([(vessels.volume_mm3 * part)[inside] for part in parts]),
        minlength=size * size,
    )
    field = (drawn / pitch**2).reshape(size, size).astype(np.float32)
    smooth: FloatMap = ndimage.gaussian_filter(field, 1.0 / pitch, truncate=2.5)
    return smooth


def _tree(rng: np.random.Generator, scale: float) -> Vessels:
    """Arteries from both hila, three generations."""
    sides = np.repeat([-1.0, 1.0], TRUNKS)
    angle = np.tile(np.linspace(-1.25, 1.35, TRUNKS), 2) + rng.normal(0, 0.10, sides.size)
    start_x, start_y = sides * 34 * scale, np.full(sides.size, -8 * scale)
    length = rng.uniform(75, 120, sides.size) * scale
    parts = []
    for generation in GENERATIONS:
        along, bend = np.linspace(0, 1, generation.samples)[None, :], rng.normal(0, 0.25, sides.size)
        heading = angle[:, None] + bend[:, None] * along
        step = length[:, None] / generation.samples
        x = start_x[:, None] + sides[:, None] * np.cumsum(np.cos(heading), axis=1) * step
        y = start_y[:, None] + np.cumsum(np.sin(heading), axis=1) * step
        calibre = generation.calibre_mm * scale * (1 - 0.62 * along)
        parts.append((x, y, 0.25 * np.pi * calibre**2 * step))
        leave = rng.integers(3, generation.samples - 3, (sides.size, generation.branches))
        start_x, start_y = np.take_along_axis(x, leave, 1).ravel(), np.take_along_axis(y, leave, 1).ravel()
        turn = rng.choice([-1.0, 1.0], leave.size) * rng.uniform(0.3, 0.8, leave.size)
        angle = np.take_along_axis(heading, leave, 1).ravel() + turn
        shorter = rng.uniform(0.35, 0.6, leave.size)
        sides, length = (np.repeat(values, generation.branches) for values in (sides, length))
        length = length * shorter
    flat = [np.concatenate([part[i].ravel() for part in parts]).astype(np.float32) for i in range(3)]
    return Vessels(*flat)
