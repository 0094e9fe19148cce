"""How like an original a reconstruction is, judged in the attacker's favour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter

from simulations.attacks.images import Pictures

RECOGNISED_DB: Final = 20.0
"""Peak signal-to-noise ratio that a recovered picture exceeds."""
BETTER_DB: Final = 3.0
"""And by so much it is better than the public picture most like the original: chests resemble each other."""
_BLURS: Final = (0.0, 1.0, 2.0)
"""Standard deviations, in pixels, of the smoothing an attacker tries; the best is kept."""
_WINDOW: Final = 7
"""Side of the window of SSIM (Wang et al. 2004), in pixels."""

Shares = npt.NDArray[np.float64]


def psnr(original: Pictures, other: Pictures) -> float:
    """Decibels, for pictures from 0 to 1; at most 100."""
    error = float(np.mean((original.astype(np.float64) - other) ** 2))
    return 100.0 if error < 1e-10 else -10.0 * float(np.log10(error))


def ssim(original: Pictures, other: Pictures) -> float:
    """Mean structural similarity, uniform window, for pictures from 0 to 1."""
    x, y = original.astype(np.float64), other.astype(np.float64)
    mx, my = uniform_filter(x, _WINDOW), uniform_filter(y, _WINDOW)
    vx, vy = uniform_filter(x * x, _WINDOW) - mx**2, uniform_filter(y * y, _WINDOW) - my**2
    cov = uniform_filter(x * y, _WINDOW) - mx * my
    top = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
    return float(np.mean(top / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))))


def smoothed(candidates: Pictures) -> Pictures:
    """Every candidate as it is and smoothed in the ways an attacker would try; [n x ways, side, side]."""
    made = [candidates if not b else gaussian_filter(candidates, (0, b, b)) for b in _BLURS]
    return np.concatenate(made).astype(np.float32)


def best_matches(originals: Pictures, candidates: Pictures) -> Pictures:
    """For each original the candidate most like it, with brightness and contrast fitted to the original.

    No attacker can do this: he does not know the originals. What cannot be recognised even so is safe.
    """
    flat = candidates.reshape(len(candidates), -1).astype(np.float64)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.where(norms > 0, norms, 1.0)
    wanted = originals.reshape(len(originals), -1).astype(np.float64)
    means = wanted.mean(axis=1, keepdims=True)
    likeness = (wanted - means) @ flat.T
    best = np.abs(likeness).argmax(axis=1)
    fitted = means + flat[best] * likeness[np.arange(len(originals)), best][:, None]
    return np.asarray(np.clip(fitted, 0.0, 1.0).reshape(originals.shape), dtype=np.float32)


def guesses(originals: Pictures, public: Pictures) -> tuple[float, ...]:
    """Of each original, in decibels, what the public picture most like it reaches: known without any attack."""
    found = best_matches(originals, public)
    return tuple(psnr(one, other) for one, other in zip(originals, found, strict=True))


def recovered(decibels: Sequence[float], guess: Sequence[float]) -> int:
    """How many were recovered: recognisable, and clearly better than a guess."""
    pairs = zip(decibels, guess, strict=True)
    return sum(value > max(RECOGNISED_DB, known + BETTER_DB) for value, known in pairs)
