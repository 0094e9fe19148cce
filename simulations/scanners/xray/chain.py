"""The chain of a radiograph, in physical order; `expose` runs it.

Deterministic: the same subject and the same recorded exposure give the same bits, in any process, with the versions
of NumPy and OpenCV that constraints.txt names.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.scanners.stages import Stage, run_stages
from simulations.scanners.xray import beam, compression, display, faults, noise, scatter, sharpness
from simulations.scanners.xray.exposure import Exposure, Frame, Subject, begin

STAGES: Final[tuple[Stage[Frame], ...]] = (
    Stage("projection", beam.projection),
    Stage("beam", beam.beam),
    Stage("collimator", beam.collimator),
    Stage("patient", beam.patient),
    Stage("letter", beam.letter),
    Stage("scatter", scatter.scatter),
    Stage("grid", scatter.grid),
    Stage("unsharpness", sharpness.unsharpness),
    Stage("quanta", noise.quanta),
    Stage("light", sharpness.light),
    Stage("gain", faults.gain_offset),
    Stage("electronic", noise.electronic),
    Stage("dead", faults.dead),
    Stage("density", display.density),
    Stage("edge", display.edge),
    Stage("curve", display.curve),
    Stage("window", display.window),
    Stage("digits", display.digits),
    Stage("shutter", display.shutter),
    Stage("stamp", display.stamp),
    Stage("compression", compression.compression),
)


def expose(subject: Subject, exposure: Exposure) -> npt.NDArray[np.uint16]:
    """The image: uint16 [rows, columns] of the machine's bits, bright where much is absorbed.

    The subject is not changed.
    """
    return run_stages(STAGES, begin(subject, exposure)).pixels


def expose_until(subject: Subject, exposure: Exposure, stage: str) -> Frame:
    """The frame as this stage left it: for tests, and for pictures of the way.

    Raises:
        DataError: when the chain has no such stage.
    """
    return run_stages(STAGES, begin(subject, exposure), stage)


def on_panel(mask: npt.NDArray[np.bool_], exposure: Exposure) -> npt.NDArray[np.bool_]:
    """A truth mask of the subject in the pixels that `expose` returns."""
    return beam.resample(mask.astype(np.float32), exposure.step) > 0.5
