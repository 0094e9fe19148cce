"""What is fixed in a panel or new in each readout: gain, offset, lines, and elements that do not answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.scanners.stages import FloatMap, chance
from simulations.scanners.xray.exposure import Frame

Places = npt.NDArray[np.intp]
MILLION: Final = 1e6


@dataclass(frozen=True, eq=False)
class Pattern:
    """The fixed part, of unit strength: what drifts is how strong it is."""

    gain: FloatMap
    """[rows, columns], mean 0, standard deviation 1."""
    offset: FloatMap
    order: Places
    """Elements in the order in which they die."""
    lines: Places
    """Rows (0 to rows - 1) and columns (rows on) in the order in which they die."""


@lru_cache(maxsize=12)
def pattern(seed: int, rows: int, columns: int) -> Pattern:
    """The fixed pattern of one machine since its last calibration, for images of this size."""
    rng = chance(seed, "pattern")
    gain = rng.standard_normal((rows, columns), dtype=np.float32)
    offset = rng.standard_normal((rows, columns), dtype=np.float32)
    # One element in a hundred may die: a list of all would cost more than the rest of the pattern.
    order = rng.choice(rows * columns, max(1, rows * columns // 100), replace=False)
    return Pattern(gain, offset, order, rng.permutation(rows + columns))


def gain_offset(frame: Frame) -> None:
    """What flat-field and dark correction leave, and the gain of each row in this exposure.

    Formula: N (1 + s_g p / b) (1 + s_l r) + s_o o / g; p, o fixed patterns and r rows of unit variance, b = binning, g electrons
    a quantum; offsets of b^2 elements add to b s_o.
    Unit: quanta absorbed in one written pixel.
    Source: two-point correction, fixed-pattern noise (Seibert, Boone & Lindfors, SPIE 3336, 1998).
    """
    exposure, panel = frame.exposure, frame.exposure.machine.panel
    rows, columns = frame.image.shape
    fixed = pattern(exposure.machine.pattern, rows, columns)
    share = fixed.gain * np.float32(panel.gain_spread / exposure.binning)
    share += 1
    frame.image = frame.image * share
    if panel.line_noise:
        rng = chance(exposure.seed, "lines")
        frame.image *= 1 + np.float32(panel.line_noise) * rng.standard_normal((rows, 1), dtype=np.float32)
    if panel.offset_spread:
        strength = panel.offset_spread / panel.electrons * exposure.binning
        frame.image += fixed.offset * np.float32(strength)


def dead(frame: Frame) -> None:
    """Elements and lines that do not answer: filled from their neighbours where the map knows them, black where not.

    Formula: known: (N left + N right) / 2, rows above and below for a dead row; unknown: N (1 - 1/b^2), a line N (1 - 1/b), b = binning.
    Unit: quanta absorbed in one written pixel.
    Source: defect correction by neighbours, IEC 62220-1 demands it before DQE is measured; how many is the machine's.
    """
    exposure, panel = frame.exposure, frame.exposure.machine.panel
    rows, columns = frame.image.shape
    fixed = pattern(exposure.machine.pattern, rows, columns)
    count = min(len(fixed.order), round(panel.dead_ppm / MILLION * rows * columns * exposure.binning**2))
    gone = fixed.order[:count]
    known = np.arange(count) >= round(count * panel.unmapped)
    down, across = np.divmod(gone, columns)
    _fill_points(frame, down[known], across[known])
    frame.image[down[~known], across[~known]] *= np.float32(1 - 1 / exposure.binning**2)
    gone_lines = fixed.lines[: round(panel.dead_lines)]
    for number, line in enumerate(gone_lines):
        _line(frame, int(line), known=number >= round(len(gone_lines) * panel.unmapped))


def _fill_points(frame: Frame, down: Places, across: Places) -> None:
    if frame.exposure.binning > 1:
        return  # the block's other elements speak for it
    last = frame.image.shape[1] - 1
    left, right = np.abs(across - 1), last - np.abs(last - across - 1)
    frame.image[down, across] = (frame.image[down, left] + frame.image[down, right]) / 2


def _line(frame: Frame, line: int, *, known: bool) -> None:
    """A row, or a column turned on its side."""
    rows = frame.image.shape[0]
    image, at = (frame.image, line) if line < rows else (frame.image.T, line - rows)
    last = image.shape[0] - 1
    if not known:
        image[at] *= np.float32(1 - 1 / frame.exposure.binning)
    elif frame.exposure.binning == 1:
        image[at] = (image[abs(at - 1)] + image[last - abs(last - at - 1)]) / 2
