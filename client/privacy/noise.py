"""Chance that an adversary cannot predict: patients to draw, and Gaussian noise.

One ChaCha20 keystream per source, keyed by the operating system when the source is made. There is no
seed, no state to save and no way to copy a source: the randomness of privacy noise is never recorded.

The noise of one coordinate is half the sum of four Gaussians, as in Opacus's secure mode: from the
rounding of a single floating-point sample its neighbours can be told apart (Mironov 2012; Holohan and
Braghin 2021), and solving for four at once costs an adversary more than 2^50 tries each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from common.errors import WrongOrder

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_SUMMANDS: Final = 4
CHUNK: Final = 1 << 16
"""Coordinates made at a time: 2 MiB of keystream, which stays in the processor's cache."""
_TWO_POW_64: Final = 1 << 64
_ONE: Final = np.uint64(0x3FF0_0000_0000_0000)
"""The bits of the double 1.0."""
_BLOCK_BYTES: Final = 64

Float64 = npt.NDArray[np.float64]


class NoiseSource:
    """An unpredictable source of uniform words, Bernoulli draws and Gaussian noise.

    Make one per training attempt and throw it away afterwards.
    """

    def __init__(self) -> None:
        cipher = Cipher(ChaCha20(os.urandom(_KEY_BYTES), os.urandom(_NONCE_BYTES)), mode=None)
        self._stream = cipher.encryptor()
        self._room: _Room | None = None

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
        return self.fill(np.empty(count), std)

    def chunks(self, count: int, std: float) -> Iterator[Float64]:
        """The same a chunk at a time, in order; each is overwritten when the next is asked for."""
        room = np.empty(min(count, CHUNK))
        for start in range(0, count, CHUNK):
            yield self.fill(room[: count - start], std)

    def fill(self, out: Float64, std: float) -> Float64:
        """The same into memory that is there already; returns `out`."""
        if self._room is None or self._room.count < min(len(out), CHUNK):
            self._room = _Room(min(len(out), CHUNK))
        room = self._room
        for start in range(0, len(out), CHUNK):
            part = out[start : start + CHUNK]
            total = self._half_sum_of_four(room)
            np.multiply(total.reshape(-1)[: len(part)], std, out=part)
        return out

    def _half_sum_of_four(self, room: _Room) -> Float64:
        """Standard normals [2, pairs]; each is half the sum of four Box-Muller samples.

        The cosines go to the first half and the sines to the second, so that the four summands of one
        coordinate come from eight uniform words of their own.
        """
        room.total.fill(0.0)
        for _ in range(_SUMMANDS):
            self._stream.update_into(room.zeros, room.bytes)
            radius, angle = room.polar()
            for half, wave in ((0, torch.cos), (1, torch.sin)):
                wave(angle, out=room.wave)
                room.wave *= radius
                room.total[half] += room.wave.numpy()
        room.total *= 0.5
        return room.total


class _Room:
    """Memory for one chunk of noise, used again for the next: fresh pages cost more than the arithmetic."""

    def __init__(self, count: int) -> None:
        pairs = (count + 1) // 2
        self.count = count
        self.zeros = bytes(16 * pairs)
        self.bytes = bytearray(16 * pairs + _BLOCK_BYTES)
        """The cipher asks for the room of one block more than it writes."""
        self.total = np.empty((2, pairs))
        self.wave = torch.empty(pairs, dtype=torch.float64)
        self._words = np.frombuffer(self.bytes, dtype=np.uint64, count=2 * pairs)
        self._uniform = np.empty(2 * pairs)

    def polar(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Box and Muller 1958: the radius of a planar Gaussian, and its angle in radians.

        A uniform number is 52 bits of the keystream set as the fraction of a double between 1 and 2, less
        1 - 2^-53: it is never 0, and the distance to the next is the same everywhere.
        """
        words, uniform = self._words, self._uniform
        words >>= np.uint64(12)
        words |= _ONE
        np.subtract(words.view(np.float64), 1.0 - 2.0**-53, out=uniform)
        radius, angle = np.split(uniform, 2)
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle *= 2.0 * np.pi
        return torch.from_numpy(radius), torch.from_numpy(angle)
