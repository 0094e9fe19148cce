"""A real image as the subject of an exposure: its line integral is estimated, because nobody knows it.

How. A chest image for presentation is bright where much was absorbed, and roughly linear in the logarithm of exposure
between its ends. The grey value below which 1% of the image lies is taken as a line integral of `thin`, the value below which
99% lies as `thick`, and everything between (and beyond) on the straight line through both.

What that does not give. No absolute dose or thickness: the two ends are assumed. What the first machine did stays in the image:
its noise, blur, scatter, curve, letters and shutter are taken for anatomy, so a chain can make an image worse and different,
never better. Bone and soft tissue are not apart: voltage changes both alike. Clipped regions stay flat. Where the curve
was far from straight, contrasts are wrong by its slope. So: for comparing the same image through two chains, and
for augmentation; not for absolute physics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from simulations.phantoms import Projection
from simulations.scanners.xray.exposure import Subject

FIELD_MM: Final = 384.0
"""How wide a chest image is taken to be where nobody knows: 35 to 43 cm panels."""


@dataclass(frozen=True)
class Guess:
    """What is assumed of an image whose exposure nobody recorded."""

    thin: float = 0.8
    """Line integral of the darkest hundredth: lung of a thin chest or air beside it."""
    thick: float = 5.5
    """Line integral of the brightest hundredth: spine and abdomen of an average adult at 120 kV."""
    ends: tuple[float, float] = (0.01, 0.99)
    pitch_mm: float | None = None
    """Side of a pixel at the panel; None takes the whole width for 384 mm."""
    projection: Projection = "PA"
    inverted: bool = False
    """Whether the image is bright where little was absorbed (MONOCHROME1 before inversion)."""


def subject_from_image(image: npt.NDArray[np.generic], guess: Guess | None = None) -> Subject:
    """The subject that such an image may have been taken of.

    Args:
        image: [rows, columns], any real type, bright where much was absorbed.
        guess: what is assumed; the defaults are for adult chests.

    Raises:
        DataError: when the image is not two-dimensional, not finite, or of one value only.
    """
    guess = guess or Guess()
    values = np.asarray(image, dtype=np.float32)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise DataError("image", "must be rows and columns of finite numbers", "Decode one plane first")
    low, high = np.quantile(values, guess.ends)
    if high <= low:
        raise DataError("image", "has one value only", "Use an image that shows something")
    share = (values - np.float32(low)) / np.float32(high - low)
    if guess.inverted:
        share = 1 - share
    mu = np.float32(guess.thin) + np.float32(guess.thick - guess.thin) * share
    pitch = guess.pitch_mm or FIELD_MM / values.shape[1]
    soft = np.maximum(mu, 0, dtype=np.float32)
    return Subject(soft, np.zeros_like(soft), pitch, guess.projection, estimated=True)
