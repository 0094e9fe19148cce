"""The chain of a magnetic resonance image, in physical order; `acquire` runs it.

k-space is kept centred: `kspace[lines // 2, samples // 2]` is frequency zero. Lines are the phase encoding (image rows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft

from common.errors import DataError
from simulations.phantoms.head import TISSUES, Head
from simulations.scanners.mr.settings import Acquisition
from simulations.scanners.stages import FloatMap, Stage, chance, run_stages

Complex = npt.NDArray[np.complex64]

PROTON_HZ_PER_T: Final = 42.577e6
DENSITY: Final = dict(zip(TISSUES, (0.90, 0.05, 1.00, 0.82, 0.71, 0.85), strict=True))
"""Mobile protons by those of water; bone's are few. Our rounding of textbook values; fat is that of the scalp."""
T2_MS: Final = dict(zip(TISSUES, (80.0, 1.0, 2000.0, 95.0, 72.0, 140.0), strict=True))
"""Grey and white matter: Stanisz et al., MRM 54 (2005), 1.5 T; the others our rounding of textbook values."""
T1_LAW_MS: Final = {"grey": (1.16, 0.376), "white": (0.71, 0.382), "lesion": (1.35, 0.376)}
"""Milliseconds a and exponent b of a (gamma B0)^b: Rooney et al., MRM 57 (2007); lesions as grey matter with more water, ours."""
T1_MS: Final = {"fat": 290.0, "bone": 300.0, "csf": 4300.0}
"""Hardly change with the field between 0.5 and 3 T."""


@dataclass(eq=False)
class Frame:
    """What the stages hand on."""

    head: Head
    acquisition: Acquisition
    image: FloatMap
    """Signal or magnitude; unit of the stage that left it."""
    kspace: Complex
    """Centred, from stage `encode` on; of the acquired matrix from stage `sampling` on."""
    pixels: npt.NDArray[np.uint16]


def relaxation(tissue: str, field_t: float) -> float:
    """T1 in milliseconds at this field."""
    if tissue in T1_MS:
        return T1_MS[tissue]
    scale, power = T1_LAW_MS[tissue]
    return float(scale * (PROTON_HZ_PER_T * field_t) ** power)


def signal(frame: Frame) -> None:
    """What each pixel's tissues give at this timing and field.

    Formula: sum over tissues of share rho |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2); without inversion 1 - exp(-TR/T1).
    Unit: by the signal of fully relaxed water.
    Source: Bloch equations of a spin echo; T1(B0) Rooney et al., MRM 57 (2007), T2 Stanisz et al., MRM 54 (2005).
    """
    made, sequence = frame.acquisition, frame.acquisition.sequence
    weights = []
    for tissue in TISSUES:
        t1 = relaxation(tissue, made.field_t)
        back = np.exp(-sequence.repetition_ms / t1)
        turned = 1 - 2 * np.exp(-sequence.inversion_ms / t1) + back if sequence.inversion_ms else 1 - back
        weights.append(DENSITY[tissue] * abs(turned) * np.exp(-sequence.echo_ms / T2_MS[tissue]))
    flat = frame.head.shares.reshape(len(TISSUES), -1)
    frame.image = (np.array(weights, dtype=np.float32) @ flat).reshape(frame.head.shares.shape[1:])


def bias(frame: Frame) -> None:
    """The coil hears some regions better: a smooth field over the image.

    Formula: S exp(sum a_ij P_i(x) P_j(y)), Legendre polynomials, 1 <= i + j <= 3, x and y from -1 to 1.
    Unit: by the signal of fully relaxed water.
    Source: multiplicative smooth field: Sled, Zijdenbos & Evans, IEEE TMI 17 (1998); the form is our choice.
    """
    frame.image = frame.image * coil(frame.acquisition.bias, frame.image.shape)


def coil(coefficients: tuple[float, ...], shape: tuple[int, ...]) -> FloatMap:
    """The sensitivity map [rows, columns]."""
    table = np.zeros((4, 4))
    pairs = [(i, j) for i in range(4) for j in range(4) if 1 <= i + j <= 3]
    for (i, j), value in zip(pairs, coefficients, strict=True):
        table[i, j] = value
    rows, columns = (np.polynomial.legendre.legvander(np.linspace(-1, 1, n), 3) for n in shape)
    return np.asarray(np.exp((rows @ table @ columns.T).astype(np.float32)))


def encode(frame: Frame) -> None:
    """Gradients turn place into frequency.

    Formula: k = F S / sqrt(rows columns), centred.
    Unit: by the signal of fully relaxed water, unitary transform.
    Source: Ljunggren, J Magn Reson 54 (1983); Twieg, Med Phys 10 (1983).
    """
    moved = fft.ifftshift(frame.image)
    frame.kspace = fft.fftshift(fft.fft2(moved.astype(np.complex64), norm="ortho"))


def sampling(frame: Frame) -> None:
    """Only so many lines and samples are taken: edges ring.

    Formula: k kept for |line| < L/2 and |sample| < M/2, times sqrt of the share kept (so that intensity stays); edges overshoot by 9%.
    Unit: by the signal of fully relaxed water, unitary transform of the acquired matrix.
    Source: Gibbs, Nature 59 (1899); in MR: Czervionke et al., AJNR 9 (1988).
    """
    lines, samples = frame.acquisition.matrix
    rows, columns = frame.kspace.shape
    top, left = rows // 2 - lines // 2, columns // 2 - samples // 2
    kept = frame.kspace[top : top + lines, left : left + samples]
    frame.kspace = kept * np.float32(np.sqrt(lines * samples / (rows * columns)))


def motion(frame: Frame) -> None:
    """The head moves between lines: ghosts along the phase encoding.

    Formula: line v times exp(-2 pi i (v d_y(t) + u d_x(t)) / field), d_y = A sin(2 pi c t) + jump after its time, t = 0 to 1 over the lines.
    Unit: as before.
    Source: shift theorem; ghosts: Haacke & Patrick, Magn Reson Imaging 4 (1986). Translation only, in the plane.
    """
    made = frame.acquisition
    if not made.sway_mm and not any(made.jump_mm):
        return
    lines, samples = frame.kspace.shape
    time = np.arange(lines) / lines
    field_mm = frame.head.pitch_mm * frame.head.shares.shape[1]
    after = time >= made.jump_at
    down = (made.sway_mm * np.sin(2 * np.pi * made.sway_cycles * time) + made.jump_mm[0] * after) / field_mm
    v = np.arange(lines) - lines // 2
    turned = np.exp(-2j * np.pi * v * down).astype(np.complex64)
    frame.kspace = frame.kspace * turned[:, None]
    if made.jump_mm[1]:
        u = np.arange(samples) - samples // 2
        across = np.exp(-2j * np.pi * u * made.jump_mm[1] / field_mm).astype(np.complex64)
        frame.kspace[after] *= across[None, :]


def noise(frame: Frame) -> None:
    """Thermal noise of patient and coil, even over k-space.

    Formula: k + s (a + i b), a, b normal; s = noise (1.5 / B0) (5 / dz) (1 / dx dy) sqrt(256 256 / (L M)) sqrt(1 / averages) sqrt(bandwidth / 130),
    dx = field / M, dy = field / L in mm.
    Unit: by the signal of fully relaxed water, unitary transform of the acquired matrix.
    Source: signal by volume and root of time, noise of the patient by B0: Edelstein et al., MRM 3 (1986); Macovski, MRM 36 (1996).
    """
    rng = chance(frame.acquisition.seed, "noise")
    drawn = rng.standard_normal((*frame.kspace.shape, 2), dtype=np.float32)
    drawn *= np.float32(sigma(frame))
    frame.kspace = frame.kspace + drawn.view(np.complex64)[..., 0]


def sigma(frame: Frame) -> float:
    """Standard deviation of real and imaginary part of one pixel of the acquired matrix."""
    made = frame.acquisition
    lines, samples = made.matrix
    field_mm = frame.head.pitch_mm * frame.head.shares.shape[1]
    area = (field_mm / lines) * (field_mm / samples)
    time = np.sqrt(256 * 256 / (lines * samples) / made.averages * made.bandwidth_hz / 130)
    return float(made.noise * (1.5 / made.field_t) * (5 / made.thickness_mm) / area * time)


def spikes(frame: Frame) -> None:
    """Arcing during one sample: stripes over the whole image.

    Formula: k[v, u] + size max|k| exp(i p), p even over the circle; a spike at (v, u) is a wave of v and u periods.
    Unit: as before.
    Source: transform of a point; herringbone artefact: Heiland, Clin Neuroradiol 18 (2008).
    """
    made = frame.acquisition
    lines, samples = frame.kspace.shape
    largest = float(np.abs(frame.kspace[lines // 2 - 2 : lines // 2 + 3]).max()) if made.spikes else 0.0
    phases = chance(made.seed, "spikes").uniform(0, 2 * np.pi, len(made.spikes))
    for (v, u, size), phase in zip(made.spikes, phases, strict=True):
        frame.kspace[lines // 2 + v, samples // 2 + u] += np.complex64(size * largest * np.exp(1j * phase))


def magnitude(frame: Frame) -> None:
    """Apodised, filled with zeros to the image's size, transformed back; phase is thrown away.

    Formula: |F^-1 (w k)|, w a Tukey window of both axes; the noise becomes Rician: mean square A^2 + 2 s^2, in air mean s sqrt(pi/2).
    Unit: by the signal of fully relaxed water.
    Source: Gudbjartsson & Patz, MRM 34 (1995); zero filling: Bernstein et al., JMRI 14 (2001).
    """
    lines, samples = frame.kspace.shape
    rows, columns = frame.image.shape
    share = frame.acquisition.apodisation
    weight = np.outer(_tukey(lines, share), _tukey(samples, share))
    weight *= np.float32(np.sqrt(rows * columns / (lines * samples)))
    wide = np.zeros((rows, columns), dtype=np.complex64)
    top, left = rows // 2 - lines // 2, columns // 2 - samples // 2
    wide[top : top + lines, left : left + samples] = frame.kspace * weight
    frame.image = np.abs(fft.fftshift(fft.ifft2(fft.ifftshift(wide), norm="ortho")))


def digits(frame: Frame) -> None:
    """Scaled as the console likes it, and rounded.

    Formula: round(min(1, level m / quantile(m)) (2^bits - 1)).
    Unit: stored value, uint16; without physical meaning, as in real images.
    Source: intensities of MR have no scale: Nyul & Udupa, MRM 42 (1999).
    """
    made = frame.acquisition
    white = float(np.quantile(frame.image[::4, ::4], made.white_quantile)) or 1.0
    top = (1 << made.bits) - 1
    frame.image = np.minimum(frame.image * np.float32(made.white_level * top / white), np.float32(top))
    frame.pixels = np.rint(frame.image).astype(np.uint16)


def _tukey(count: int, share: float) -> FloatMap:
    """1 in the middle, a half cosine over the outer `share`."""
    away = np.abs(np.arange(count) - count // 2) / (count / 2)
    edge = np.clip((away - (1 - share)) / share, 0, 1) if share else np.zeros(count)
    return np.asarray(0.5 * (1 + np.cos(np.pi * edge)), dtype=np.float32)


STAGES: Final[tuple[Stage[Frame], ...]] = (
    Stage("signal", signal),
    Stage("bias", bias),
    Stage("encode", encode),
    Stage("sampling", sampling),
    Stage("motion", motion),
    Stage("noise", noise),
    Stage("spikes", spikes),
    Stage("magnitude", magnitude),
    Stage("digits", digits),
)


def acquire(head: Head, acquisition: Acquisition) -> npt.NDArray[np.uint16]:
    """The image: uint16 [size, size] of the site's bits. The head is not changed.

    Raises:
        DataError: when the acquired matrix is finer than the head.
    """
    return acquire_until(head, acquisition, None).pixels


def acquire_until(head: Head, acquisition: Acquisition, stage: str | None) -> Frame:
    """The frame as this stage left it.

    Raises:
        DataError: when the chain has no such stage, or the matrix is finer than the head.
    """
    size = head.shares.shape[1:]
    if acquisition.matrix[0] > size[0] or acquisition.matrix[1] > size[1]:
        raise DataError(
            "matrix", f"is finer than the head's {size[0]} x {size[1]} pixels", "Render the head larger"
        )
    nothing = np.zeros((0, 0), dtype=np.complex64)
    frame = Frame(head, acquisition, np.zeros(size, np.float32), nothing, np.zeros(size, np.uint16))
    return run_stages(STAGES, frame, stage)
