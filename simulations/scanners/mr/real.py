"""A real magnitude image as the head of another acquisition.

How. The image, from 0 to its largest value, is taken for the share of one tissue whose signal is even: what comes out has the
contrast that went in, through another coil, matrix, movement and noise. What that does not give: another weighting (tissues are
not known), phase, or the first acquisition's noise taken away; its Rician noise and its own ringing are taken for anatomy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from simulations.phantoms.head import TISSUES, Head


def head_from_image(image: npt.NDArray[np.generic], pitch_mm: float) -> Head:
    """The head that stands for such an image: [rows, columns], any real type, bright where signal was.

    Raises:
        DataError: when the image is not two-dimensional, not finite, negative, or empty of signal.
    """
    values = np.asarray(image, dtype=np.float32)
    if values.ndim != 2 or not np.isfinite(values).all() or values.min() < 0 or values.max() == 0:
        raise DataError("image", "must be rows and columns of magnitudes", "Decode one slice first")
    shares = np.zeros((len(TISSUES), *values.shape), dtype=np.float32)
    shares[TISSUES.index("csf")] = values / values.max()
    return Head(shares, np.zeros(values.shape, dtype=np.bool_), pitch_mm)
