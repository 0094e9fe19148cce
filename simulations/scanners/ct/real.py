"""Real slices as the trunk of another acquisition.

How. Hounsfield units are what the chain begins with: nothing is estimated. Thin slices of one series can be read as thicker ones. What that
does not give: more sharpness or less noise than the first scanner had; its noise is taken for tissue, and the line integrals through
it, from which the new noise comes, are those of the slice alone, without table and arms outside the field.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from simulations.phantoms.trunk import Trunk


def trunk_from_slices(hounsfield: npt.NDArray[np.generic], pitch_mm: float, spacing_mm: float) -> Trunk:
    """The trunk that stands for slices [slices, n, n] in Hounsfield units, in order along the body.

    Raises:
        DataError: when they are not square slices of finite numbers.
    """
    values = np.asarray(hounsfield, dtype=np.float32)
    if values.ndim != 3 or values.shape[1] != values.shape[2] or not np.isfinite(values).all():
        raise DataError("slices", "must be square slices of finite numbers", "Decode and crop them first")
    return Trunk(values, np.zeros(values.shape, dtype=np.bool_), pitch_mm, spacing_mm)
