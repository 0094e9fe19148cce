"""The chain, in physical order. Maps are [size, size] float32.

    1 beam       I0 = 1 - heel * row, inside the collimator's blades            relative fluence
    2 patient    P = I0 exp(-(s_soft(kVp) mu_soft t + s_bone(kVp) mu_bone t + clutter)), lead letters
    3 scatter    S = SPR <P> / <s> s, s = G_scatter * (P mu t), means <> behind the patient       relative
    4 unsharp    G_motion * (P + S)                                             focal spot, motion
    5 quanta     N ~ Poisson(kappa (P + S)), kappa = kerma * quanta * element^2 * DQE   quanta per element
    6 detector   G_light * N, fixed gain, grid lines, row gain, + readout noise         quanta
    7 sampling   from the phantom's pitch to the detector's (before 3: all later stages live there)
    8 curve      log10, latitude and anchor, sigmoid                            display value, 0 to 1
    9 edge       v + gain (v - G v)
    10 digits    shutter, rounding to bits                                      uint16

Poisson noise is drawn as a normal deviate of the same variance: above 20 quanta they differ by less than
the rounding to 10 bits. G are Gaussians; the MTF of standard deviation s elements is
exp(-2 (pi s f)^2), f in cycles per element.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from simulations.phantoms import Anatomy, mottle
from simulations.scanners.scanner import QUANTA_PER_MM2_UGY, Scanner, Settings

FloatMap = npt.NDArray[np.float32]

REFERENCE_KVP: Final = 120.0
SOFT_PER_KV: Final = -0.0020
BONE_PER_KV: Final = -0.0060
"""Relative change of attenuation per kilovolt around 120 kV. Mean energy follows about 0.37 keV per kV;
water falls by 0.6% and cortical bone by 1.7% per keV at 60 keV (NISTIR 5632)."""

BLADES: Final = np.float32(0.002)
"""What 2 mm of lead and off-focus radiation let through the collimator."""
PENUMBRA_MM: Final = 3.0
LEAD: Final = np.float32(0.03)
"""What a 1 mm lead letter lets through, scatter aside."""

BEHIND_PATIENT: Final = np.float32(0.2)
"""Line integral from which a pixel counts as behind the patient: a centimetre of water."""

SCATTER_STEP: Final = 8
"""Scatter is smooth over centimetres: it is computed on every eighth pixel."""

GLYPHS: Final = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


def apply(anatomy: Anatomy, settings: Settings) -> npt.NDArray[np.uint16]:
    """Expose this anatomy: pixels of `settings.scanner.bits` bits, bright where attenuation is high.

    Deterministic: the noise comes from `settings.noise_seed`.
    """
    scanner, rng = settings.scanner, np.random.default_rng(settings.noise_seed)
    field = _field(settings, anatomy.soft.shape[0])
    mu = _attenuation(anatomy, settings)
    if scanner.clutter:
        mu += np.float32(scanner.clutter) * (mottle(rng, mu.shape[0]) + np.float32(0.7)).clip(0, 4)
    primary = _beam(scanner, mu.shape[0]) * field * np.exp(-mu)
    _lay_letter(primary, settings)
    arriving = primary + _scatter(primary, mu, settings)
    counted = _detect(arriving, settings, rng)
    value = _edge(_curve(counted, field, scanner), scanner)
    if scanner.shutter:
        value *= field > 0.5
    top = np.float32((1 << scanner.bits) - 1)
    pixels: npt.NDArray[np.uint16] = np.rint(value.clip(0, 1) * top).astype(np.uint16)
    return pixels


def on_detector(mask: npt.NDArray[np.bool_], anatomy: Anatomy, settings: Settings) -> npt.NDArray[np.bool_]:
    """A truth mask of the anatomy in the pixels that `apply` returns."""
    moved = _resample(mask.astype(np.float32), settings.scanner.pitch_mm / anatomy.pitch_mm)
    return moved > 0.5


def _attenuation(anatomy: Anatomy, settings: Settings) -> FloatMap:
    """Line integrals at this tube voltage, on the detector's pixels."""
    away = settings.kvp - REFERENCE_KVP
    soft, bone = np.float32(1 + SOFT_PER_KV * away), np.float32(1 + BONE_PER_KV * away)
    return _resample(soft * anatomy.soft + bone * anatomy.bone, settings.scanner.pitch_mm / anatomy.pitch_mm)


@lru_cache(maxsize=32)
def _taps(size: int, target: int, step: float) -> tuple[npt.NDArray[np.intp], FloatMap]:
    """Left neighbour and weight of the right one for `target` samples `step` apart around the centre."""
    place = np.clip((np.arange(target) - (target - 1) / 2) * step + (size - 1) / 2, 0, size - 1)
    left = np.minimum(place.astype(np.intp), size - 2)
    return left, (place - left).astype(np.float32)


def _resample(image: FloatMap, step: float, target: int | None = None) -> FloatMap:
    """Linear interpolation at `target` positions `step` pixels apart, about the centre, on both axes."""
    size = image.shape[0]
    if step == 1.0 and target in (None, size):
        return image
    left, right = _taps(size, target or size, step)
    rows = image[left] * (1 - right)[:, None] + image[left + 1] * right[:, None]
    turned = np.ascontiguousarray(rows.T)
    columns = turned[left] * (1 - right)[:, None] + turned[left + 1] * right[:, None]
    return np.ascontiguousarray(columns.T)


def _beam(scanner: Scanner, size: int) -> FloatMap:
    """Fluence along the tube's axis (head to foot), falling towards the anode: the heel effect."""
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    return 1 - np.float32(abs(scanner.heel)) * (ramp if scanner.heel > 0 else 1 - ramp)


def _field(settings: Settings, size: int) -> FloatMap:
    """1 inside the collimated field, the blades' leakage outside, a penumbra between."""
    pitch = settings.scanner.pitch_mm
    place = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(pitch)
    left, right, top, bottom = settings.field_mm

    def edge(near: float, far: float) -> FloatMap:
        inner = np.minimum(place - np.float32(near), np.float32(size * pitch - far) - place)
        open_to: FloatMap = (inner / np.float32(PENUMBRA_MM) + np.float32(0.5)).clip(BLADES, 1)
        return open_to

    return edge(top, bottom)[:, None] * edge(left, right)[None, :]


def _lay_letter(primary: FloatMap, settings: Settings) -> None:
    """Put the lead side marker into the beam, in place."""
    scanner, size = settings.scanner, primary.shape[0]
    scale = max(1, round(scanner.marker_mm / 7 / scanner.pitch_mm))
    glyph = np.array([[c == "1" for c in line] for line in GLYPHS[scanner.marker]])
    shape = np.kron(glyph, np.ones((scale, scale), dtype=bool))
    away, down = (round(m / scanner.pitch_mm) for m in settings.marker_mm)
    left = size - away - shape.shape[1] // 2 if scanner.marker == "L" else away - shape.shape[1] // 2
    place = primary[down : down + shape.shape[0], left : left + shape.shape[1]]
    place[shape] *= LEAD


def _scatter(primary: FloatMap, mu: FloatMap, settings: Settings) -> FloatMap:
    """Scattered fluence: born where much is absorbed and much arrives, spread over centimetres."""
    small = slice(SCATTER_STEP // 2, None, SCATTER_STEP)
    arriving = primary[small, small]
    behind = mu[small, small] > BEHIND_PATIENT
    sigma = settings.scanner.scatter_mm / settings.scanner.pitch_mm / SCATTER_STEP
    spread: FloatMap = ndimage.gaussian_filter(
        arriving * mu[small, small], sigma, mode="constant", truncate=3.0
    )
    born = float(spread[behind].sum())
    if not born:
        return np.zeros_like(primary)
    spread *= np.float32(settings.scatter_to_primary * float(arriving[behind].sum()) / born)
    return _resample(spread, 1 / SCATTER_STEP, primary.shape[0])


def _detect(arriving: FloatMap, settings: Settings, rng: np.random.Generator) -> FloatMap:
    """Quanta counted per element, after blur, quantum noise, light spread, gain and readout."""
    scanner, detector = settings.scanner, settings.scanner.detector
    size = arriving.shape[0]
    kappa = settings.kerma_ugy * QUANTA_PER_MM2_UGY * detector.element_mm**2 * detector.efficiency
    mean = ndimage.gaussian_filter(arriving, scanner.motion_elements, truncate=3.0) * np.float32(kappa)
    noisy = mean + np.sqrt(mean) * rng.standard_normal((size, size), dtype=np.float32)
    spread = ndimage.gaussian_filter(noisy, detector.blur_elements, truncate=3.0)
    spread *= _gain(scanner, size)
    if detector.line_noise:
        spread *= 1 + np.float32(detector.line_noise) * rng.standard_normal((size, 1), dtype=np.float32)
    readout = rng.standard_normal((size, size), dtype=np.float32)
    read = spread + np.float32(detector.electronic) * readout
    quanta: FloatMap = read.clip(1, np.float32(np.finfo(np.float32).max))
    return quanta * np.float32(1 / kappa)


@lru_cache(maxsize=16)
def _gain(scanner: Scanner, size: int) -> FloatMap:
    """What flat-field correction leaves: a pattern of the machine itself, and the grid's lines."""
    detector = scanner.detector
    own = np.random.default_rng(list(scanner.name.encode()))
    pattern = 1 + detector.gain_spread * own.standard_normal((size, size))
    lines = detector.grid_lines * np.cos(2 * np.pi * np.arange(size) / detector.grid_period)
    fixed: FloatMap = (pattern * (1 + lines[None, :])).astype(np.float32)
    return fixed


def _curve(counted: FloatMap, field: FloatMap, scanner: Scanner) -> FloatMap:
    """Display values 0 to 1, dark where much arrives; the reader finds the field's median by itself."""
    curve = scanner.curve
    density = -np.log10(counted)
    sparse = slice(None, None, 4)
    seen = density[sparse, sparse][field[sparse, sparse] > 0.5]
    middle = np.float32(np.median(seen)) if seen.size else np.float32(0)
    value = (density - middle) * np.float32(1 / curve.latitude) + np.float32(curve.anchor)
    if not curve.contrast:
        return value
    half = np.tanh(np.float32(curve.contrast / 4))
    bent: FloatMap = 0.5 + np.float32(0.5 / half) * np.tanh((value - 0.5) * np.float32(curve.contrast / 2))
    return bent


def _edge(value: FloatMap, scanner: Scanner) -> FloatMap:
    gain, sigma = scanner.edge
    if not gain:
        return value
    smooth: FloatMap = ndimage.gaussian_filter(value, sigma, truncate=2.5)
    return value + np.float32(gain) * (value - smooth)
