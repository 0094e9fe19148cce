"""Unsharpness before quanta are counted, and the spread of light after.

A transfer function of each axis becomes a short symmetric kernel: the least-squares fit of its cosine series,
with a sum of exactly one. With eight taps a side or more it is wrong by less than 0.006
up to 0.4 cycles a pixel and 0.02 up to half a cycle (tested).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from simulations.scanners.stages import FloatMap
from simulations.scanners.xray.exposure import Exposure, Frame

Cycles = npt.NDArray[np.float64]
TAPS: Final = 8
"""On each side, beside what the blur itself is wide."""
FREQUENCIES: Final = 256


def unsharpness(frame: Frame) -> None:
    """Focal spot, movement and the element's own size, before a quantum is counted.

    Formula: M(u, v) = s(u b) s(u w) s(v b) s(v w) s(v t), s(x) = sin(pi x) / (pi x); b = focal spot (m - 1), m = D / (D - object),
    w = the width that collects, t = the patient's movement; u, v in cycles per mm at the panel.
    Unit: fluence by that of the open central ray.
    Source: geometric magnification; transforms of a square spot, a square aperture and an even movement.
    """
    across, down = kernels(frame.exposure)
    # A band-limited box swings below nothing beside a letter of lead by a percent of what is next to it.
    frame.image = np.maximum(convolve(frame.image, across, down), 0)


def kernels(exposure: Exposure) -> tuple[FloatMap, FloatMap]:
    """The kernels of `unsharpness` along x and along y, in written pixels."""
    side, machine = exposure.sample_mm, exposure.machine
    spot = machine.tube.focal_mm * exposure.object_mm / (exposure.distance_mm - exposure.object_mm) / side
    # Averaged elements collect over their whole block; a single element over its sensitive part.
    width = machine.panel.fill if exposure.binning == 1 else 1.0
    return _boxes((spot, width)), _boxes((spot, width, exposure.motion_mm / side))


def light(frame: Frame) -> None:
    """The converter's light spreads: signal and quantum noise alike.

    Formula: M(f) = (1 - g) exp(-2 (pi s f)^2) + g exp(-2 (pi S f)^2), f in cycles per mm at the panel; noise power by its square.
    Unit: quanta absorbed in one written pixel.
    Source: core and glare as two Gaussians, our choice of form; noise power passes by the square where each quantum gives much
    light (Rabbani, Shaw & Van Metter, JOSA A 4, 1987); their additional noise of few light quanta is left out.
    """
    panel, side = frame.exposure.machine.panel, frame.exposure.sample_mm
    core = bell(panel.blur_mm / side)
    narrow = convolve(frame.image, core, core)
    if panel.glare:
        wide = bell(panel.glare_mm / side)
        narrow *= np.float32(1 - panel.glare)
        narrow += np.float32(panel.glare) * convolve(frame.image, wide, wide)
    frame.image = narrow


def convolve(image: FloatMap, across: FloatMap, down: FloatMap) -> FloatMap:
    """Both axes, one kernel each; the border repeats."""
    if across.size == 1 and down.size == 1:
        return image.copy()
    return np.asarray(
        cv2.sepFilter2D(image, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE), dtype=np.float32
    )


@lru_cache(maxsize=256)
def _boxes(widths: tuple[float, ...]) -> FloatMap:
    def transfer(cycles: Cycles) -> Cycles:
        return np.asarray(np.prod([np.sinc(cycles * width) for width in widths], axis=0))

    return kernel(transfer, TAPS + math.ceil(sum(widths) / 2))


@lru_cache(maxsize=256)
def bell(sigma: float) -> FloatMap:
    """The kernel of a Gaussian of this standard deviation in pixels; one tap when it is 0."""
    if sigma <= 0:
        return np.ones(1, dtype=np.float32)

    def transfer(cycles: Cycles) -> Cycles:
        return np.asarray(np.exp(-2 * (np.pi * sigma * cycles) ** 2))

    return kernel(transfer, max(math.ceil(3.2 * sigma), min(12, math.ceil(4 * sigma) + 3)))


def kernel(transfer: Callable[[Cycles], Cycles], taps: int) -> FloatMap:
    """Symmetric kernel, float32 [2 taps + 1], whose transform is nearest to `transfer` on 0 to 0.5 cycles per pixel."""
    cycles = (np.arange(FREQUENCIES) + 0.5) / (2 * FREQUENCIES)
    basis = 2 * np.cos(2 * np.pi * cycles[:, None] * np.arange(1, taps + 1)[None, :]) - 2
    # The middle tap is one minus the others, so that an even field keeps its value exactly.
    side, *_ = np.linalg.lstsq(basis, transfer(cycles) - 1, rcond=None)
    return np.concatenate([side[::-1], [1 - 2 * side.sum()], side]).astype(np.float32)
