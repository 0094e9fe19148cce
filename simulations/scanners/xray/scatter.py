"""Scattered radiation, and the grid that stands against it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from simulations.scanners.chain import BEHIND_PATIENT
from simulations.scanners.xray.exposure import Frame
from simulations.scanners.xray.machine import Grid, Panel

COARSEST: Final = 8
"""Scatter is smooth over centimetres: it is computed on every eighth pixel, or finer where its spread is short."""


def scatter(frame: Frame) -> None:
    """Scatter is born where much arrives and much is absorbed, and spreads over centimetres.

    Formula: S = SPR mean(P) b / mean(b), b = G_s * (P L), means behind the patient (L > 0.2); G_s Gaussian.
    Unit: fluence by that of the open central ray.
    Source: SPR of a chest without grid 1 to 3 (Niklason et al., Med Phys 8, 1981); convolution model Seibert & Boone, Med Phys
    15 (1988), with a Gaussian.
    """
    exposure = frame.exposure
    wide = exposure.scatter_mm / frame.pitch_mm
    step = int(np.clip(wide / 4, 1, COARSEST))
    small = np.ascontiguousarray(frame.image[step // 2 :: step, step // 2 :: step])
    mu = frame.mu[step // 2 :: step, step // 2 :: step]
    behind = mu > BEHIND_PATIENT
    born = cv2.GaussianBlur(small * mu, (0, 0), wide / step, borderType=cv2.BORDER_CONSTANT)
    total = float(born[behind].sum())
    born *= np.float32(exposure.scatter_to_primary * float(small[behind].sum()) / total if total else 0)
    rows, columns = frame.image.shape
    frame.scattered = np.asarray(cv2.resize(born, (columns, rows)), dtype=np.float32)


def grid(frame: Frame) -> None:
    """The grid takes more of the scatter than of the primary, and leaves its lines.

    Formula: F = T_p P (1 + A cos(2 pi f' x)) + T_s S; A = residue (2 sin(pi d) / (pi (1 - d))) |sinc(f w)| M(f) for lines at f
    per mm with lead share d and an element's width w; f' = |f - f_s round(f / f_s)|, f_s one by the element's side;
    averaging elements multiplies by |sinc| once more and folds again.
    Unit: fluence by that of the open central ray.
    Source: transmissions IEC 60627; first Fourier term of a row of strips; sampling theorem (aliasing).
    """
    if frame.scattered.size == 0:
        frame.scattered = np.zeros_like(frame.image)
    screen = frame.exposure.machine.grid
    if screen is None:
        frame.image = frame.image + frame.scattered
        return
    depth, cycles = lines(screen, frame.exposure.machine.panel, frame.exposure.binning)
    place = np.arange(frame.image.shape[1], dtype=np.float32)
    pattern = screen.primary * (1 + depth * np.cos(2 * np.pi * cycles * place))
    frame.image = frame.image * pattern.astype(np.float32)[None, :]
    frame.image += frame.scattered * np.float32(screen.scatter)


def lines(screen: Grid, panel: Panel, binning: float) -> tuple[float, float]:
    """Relative depth of the grid's lines, and their cycles per written pixel after sampling."""
    share = screen.lead_share
    depth = screen.residue * 2 * np.sin(np.pi * share) / (np.pi * (1 - share))
    depth *= abs(np.sinc(screen.lines_per_mm * panel.element_mm * panel.fill))
    depth *= light_transfer(screen.lines_per_mm, panel)
    cycles = folded(screen.lines_per_mm * panel.element_mm)
    if binning != 1:
        depth *= abs(np.sinc(cycles * binning))
        cycles = folded(cycles * binning)
    return float(depth), cycles


def folded(cycles: float) -> float:
    """Where a frequency (cycles per sample) appears after sampling: 0 to 0.5."""
    return float(abs(cycles - round(cycles)))


def light_transfer(per_mm: float, panel: Panel) -> float:
    """The panel's light spread at this frequency: its MTF without the element's aperture."""

    def bell(sigma: float) -> float:
        return float(np.exp(-2 * (np.pi * sigma * per_mm) ** 2))

    return (1 - panel.glare) * bell(panel.blur_mm) + panel.glare * bell(panel.glare_mm)
