"""Chance at the panel: quanta that arrive one by one, and the readout."""

from __future__ import annotations

from typing import Final

import numpy as np

from simulations.scanners.stages import FloatMap, chance
from simulations.scanners.xray.exposure import Frame

FEW: Final = np.float32(5)
"""Mean counts below which a Poisson number is drawn; above, a normal one with its skewness corrected."""


def quanta(frame: Frame) -> None:
    """Quanta are absorbed one by one, and each gives more or less light.

    Formula: N = K q a^2 fill^2 eta F; the signal has mean N and variance N / A: Poisson(N A) / A. Above N A = 5 drawn as
    N + sqrt(N / A) z + (z^2 - 1) / (6 A), z normal (Cornish & Fisher's first term): mean exact, variance too large by the part
    1 / (18 N A); between whole numbers the distribution function is off by at most 0.0034 at N A = 5 and 0.001 from 15 on (a plain
    bell: 0.029 and 0.017).
    Unit: quanta absorbed in one written pixel.
    Source: q = 30174 per mm2 and microgray (IEC 62220-1, RQA5); A is Swank's factor (J Appl Phys 44, 1973): DQE(0) = fill^2 eta A.
    """
    rng = chance(frame.exposure.seed, "quanta")
    excess = frame.exposure.machine.panel.swank
    frame.image = counted(frame.image * np.float32(frame.exposure.quanta * excess), rng)
    frame.image *= np.float32(1 / excess)


def counted(mean: FloatMap, rng: np.random.Generator) -> FloatMap:
    """Counts with these means, float32; exact Poisson below `FEW`."""
    bell = rng.standard_normal(mean.shape, dtype=np.float32)
    drawn = np.sqrt(mean)
    drawn *= bell
    drawn += mean
    bell *= bell
    bell -= 1
    bell *= np.float32(1 / 6)
    drawn += bell
    few = mean < FEW
    if few.any():
        drawn[few] = rng.poisson(mean[few])
    return np.asarray(drawn, dtype=np.float32)


def electronic(frame: Frame) -> None:
    """Readout noise: even, without memory of its neighbours.

    Formula: s = binning s_e / g, s_e electrons of one element, g electrons of one quantum; binning^2 elements add in squares.
    Unit: quanta absorbed in one written pixel.
    Source: cascaded systems: additive noise of the last stage (Siewerdsen et al., Med Phys 24, 1997).
    """
    panel = frame.exposure.machine.panel
    rng = chance(frame.exposure.seed, "electronic")
    read = rng.standard_normal(frame.image.shape, dtype=np.float32)
    read *= np.float32(panel.electronic / panel.electrons * frame.exposure.binning)
    frame.image = frame.image + read
