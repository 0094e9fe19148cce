"""Chance that an adversary cannot predict: patients to draw, and Gaussian noise.

One ChaCha20 keystream per source, keyed by the operating system when the source is made. There is no
seed, no state to save and no way to copy a source: the randomness of privacy noise is never recorded.

The noise of one coordinate is half the sum of four Gaussians, as in Opacus's secure mode: from the
rounding of a single floating-point sample its neighbours can be told apart (Mironov 2012; Holohan and
Braghin 2021), and solving for four at once costs an adversary more than 2^50 tries each.
"""

from __future__ import annotations

import os
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from common.errors import WrongOrder

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_SUMMANDS: Final = 4
_CHUNK: Final = 1 << 16
"""Coordinates made at a time: 2 MiB of keystream, which stays in the processor's cache."""
_TWO_POW_64: Final = 1 << 64

Float64 = npt.NDArray[np.float64]


class NoiseSource:
    """An unpredictable source of uniform words, Bernoulli draws and Gaussian noise.

    Make one per training attempt and throw it away afterwards.
    """

    def __init__(self) -> None:
        cipher = Cipher(ChaCha20(os.urandom(_KEY_BYTES), os.urandom(_NONCE_BYTES)), mode=None)
        self._stream = cipher.encryptor()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: two sources with one state would cancel each other's noise."""
        raise WrongOrder("privacy noise", "its generator is never stored", "Make a new NoiseSource")

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """`count` uniform 64-bit words."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)

    def poisson_sample(self, patients: int, rate: float) -> npt.NDArray[np.int64]:
        """The numbers of the patients drawn, ascending; each independently with probability `rate`.

        The comparison is between whole numbers, so that the probability is never above `rate`.
        """
        words = self.words(patients)
        if rate >= 1:
            return np.arange(patients)
        return np.flatnonzero(words < np.uint64(int(rate * _TWO_POW_64)))

    def choose(self, items: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
        """At most `most` of the items, a uniformly random subset in ascending position."""
        if len(items) <= most:
            return items
        order = np.argsort(self.words(len(items)), kind="stable")
        return items[np.sort(order[:most])]

    def gaussian(self, count: int, std: float) -> Float64:
        """`count` independent Gaussians of mean 0 and standard deviation `std`, float64."""
        out = np.empty(count, dtype=np.float64)
        for start in range(0, count, _CHUNK):
            part = out[start : start + _CHUNK]
            part[:] = self._half_sum_of_four(len(part))
        out *= std
        return out

    def _half_sum_of_four(self, count: int) -> Float64:
        """Standard normals [count]; each is half the sum of four Box-Muller samples.

        The cosines go to the first half and the sines to the second, so that the four summands of one
        coordinate come from eight uniform words of their own.
        """
        half = (count + 1) // 2
        total = np.zeros((2, half))
        for _ in range(_SUMMANDS):
            radius, angle = self._polar(half)
            total[0] += radius * np.cos(angle)
            total[1] += radius * np.sin(angle)
        total *= 0.5
        return total.reshape(-1)[:count]

    def _polar(self, count: int) -> tuple[Float64, Float64]:
        """Box and Muller 1958: the radius of a planar Gaussian, and its angle in radians."""
        words = self.words(2 * count) >> np.uint64(11)
        uniform = (words.astype(np.float64) + 0.5) * 2.0**-53
        radius = np.log(uniform[:count])
        radius *= -2.0
        np.sqrt(radius, out=radius)
        uniform[count:] *= 2.0 * np.pi
        return radius, uniform[count:]
