"""Making images of different machines alike, each by itself: no image is changed by another, no patient by another.

`histogram`   Nyul, Udupa, Zhang, "New variants of a method of MRI scale standardization", IEEE TMI 19(2), 2000: percentiles
              of the image are moved to those of a standard scale, linearly in between. Their scale is the mean of the
              training images; here it is a public constant, so that nothing about anybody's images is shared.
              Gain, offset and window go, and most of a tone curve.
`amplitude`   Jiang, Wang, Dou, "HarmoFL", AAAI 2022, bring the amplitude spectra of a client's images to one, and keep the
              phases, in which the shapes are. Theirs is a running mean, shared; here it is the public power law that chest
              and breast radiographs follow (Burgess, Jacobson, Judy, Medical Physics 28, 2001: power about f^-3), and only
              the mean of each ring of frequencies is brought to it. Differences of sharpness and noise go.

Both are of one image: they hold under patient-level privacy, and need nothing on the wire.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float64]

PERCENTILES: Final = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
"""Landmarks; deciles and the ends of interest, as Nyul et al.'s third variant."""
STANDARD: Final = (-1.85, -1.48, -0.98, -0.52, -0.24, 0.03, 0.34, 0.66, 0.95, 1.27, 1.83)
"""Where they go: means over 60 virtual chests on all four scanners, 64 pixels wide, each in deviations from its mean
(`tests/client/test_harmonise.py` makes them anew)."""
EXPONENT: Final = 1.5
"""Amplitude falls with this power of frequency: half of the power's 3."""
LARGEST_GAIN: Final = 4.0
"""Of one ring: what a machine blurred away is not made up, and noise is not blown up without end."""
_LEAST: Final = 1e-9


def to_landmarks(image: Image) -> Image:
    """The image with its percentiles at the standard scale's; in deviations, order kept. A constant image gives zeros.

    Args:
        image: any shape, any unit; bright is dense.
    """
    own = np.percentile(image, PERCENTILES)
    rising = np.concatenate([[True], np.diff(own) > _LEAST * max(float(np.ptp(image)), _LEAST)])
    own, standard = own[rising], np.asarray(STANDARD)[rising]
    if len(own) < 2:
        return np.zeros_like(image)
    inside: Image = np.interp(image, own, standard)
    # Beyond the ends the nearest piece goes on, as in the paper: a bright implant stays brighter than bone.
    low, high = _slope(own[:2], standard[:2]), _slope(own[-2:], standard[-2:])
    inside += np.minimum(image - own[0], 0) * low + np.maximum(image - own[-1], 0) * high
    return inside


def to_spectrum(image: Image) -> Image:
    """The image with the mean amplitude of every ring of frequencies at the standard spectrum's; mean 0, deviation 1.

    Args:
        image: [rows, columns] in any unit. A constant image gives zeros.
    """
    if np.ptp(image) <= 0:
        return np.zeros_like(image)
    plain = (image - image.mean()) / image.std()
    ring, frequency = _rings(plain.shape)
    # Measured under a window: the seam between opposite edges would look like detail.
    found = _mean_amplitude(plain * _window(plain.shape), ring)
    wanted = _standard_amplitude(frequency, ring)
    ratio = wanted / np.maximum(found, _LEAST)
    gain = np.clip(ratio / np.median(ratio[1:]), 1 / LARGEST_GAIN, LARGEST_GAIN)
    gain[0] = 1.0
    changed = np.fft.ifft2(np.fft.fft2(plain) * gain[ring]).real
    spread = changed.std()
    return np.asarray((changed - changed.mean()) / spread if spread > 0 else np.zeros_like(changed))


def _slope(own: Image, standard: Image) -> float:
    return float((standard[1] - standard[0]) / (own[1] - own[0]))


def _rings(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], Image]:
    """[rows, columns] number of the ring, and frequency in cycles a pixel, of each place of a spectrum."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :]
    frequency: Image = np.sqrt(rows**2 + columns**2)
    width = 1.0 / min(shape)
    return np.rint(frequency / width).astype(np.int64), frequency


def _window(shape: tuple[int, ...]) -> Image:
    return np.asarray(np.hanning(shape[0])[:, None] * np.hanning(shape[1])[None, :])


def _mean_amplitude(image: Image, ring: npt.NDArray[np.int64]) -> Image:
    amplitude = np.abs(np.fft.fft2(image))
    return np.asarray(np.bincount(ring.ravel(), amplitude.ravel()) / np.bincount(ring.ravel()))


def _standard_amplitude(frequency: Image, ring: npt.NDArray[np.int64]) -> Image:
    power = np.where(frequency > 0, np.maximum(frequency, 1e-6) ** -EXPONENT, 0.0)
    return np.asarray(np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel()))
