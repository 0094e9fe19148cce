"""Weighted updates as integers of 16, 24 or 32 bits whose sum over all hospitals cannot wrap.

A value d of a hospital that weighs w is counted as q = round(w * d * scale), |q| <= most, where

    most  = floor((2^(bits-1) - 1) / parties)     so that |sum of q| < 2^(bits-1), whoever takes part
    scale = most / (heaviest * range)             range: the largest |d|; heaviest: the largest w

A value beyond `range` is refused, never cut: cutting would change what was learned without a word.

Rounding. 24 and 32 bits: to the nearest, halves to even. 16 bits: at random, up with the probability of the
fraction (from the operating system's generator), so that steps much smaller than a count are right on average
instead of lost. The error of the weighted mean is below parties * heaviest * range / (2 * most * weight) to the
nearest and twice that at random. Noise for differential privacy is in the update before; rounding comes after
it and costs no privacy.

The head is exact, in uint64: weight, and under the policy's word the sums of training figures.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from common.arrays import largest_value
from common.errors import FederationError, WrongOrder
from common.messages import Terms
from common.secagg.masks import Vector, cut, dtype_of

HEAD: Final = 6
"""weight; validation figures: weight that has them, loss, AUROC; votes: of those who could tell, how many found
the incoming model worse."""
FIGURE: Final = 2.0**-24
"""The step of a figure in the head: a sum of weight * loss stays below 2^53 for weights and losses that occur."""
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Coding:
    """How values become counts; the same at every hospital of a round."""

    bits: int
    range: float
    heaviest: int
    parties: int

    @classmethod
    def of(cls, terms: Terms) -> Coding:
        """Of a round's terms.

        Raises:
            FederationError: `secagg-terms` when so many hospitals leave no room for a value.
        """
        coding = cls(terms.bits, terms.range, terms.heaviest, len(terms.members))
        known = terms.bits in (16, 24, 32) and terms.heaviest >= 1 and terms.range > 0 and bool(terms.members)
        # What is opened is then summed in steps of 2^-32 as int64 (`common.arrays`).
        room = known and terms.range * terms.heaviest * len(terms.members) < largest_value(1)
        if not room or coding.most < 1:
            raise FederationError(
                "secure aggregation",
                "its coding is none",
                "Choose more bits or fewer sites",
                code="secagg-terms",
            )
        return coding

    @property
    def most(self) -> int:
        """The largest count of one hospital."""
        return int((2 ** (self.bits - 1) - 1) // self.parties)

    @property
    def scale(self) -> float:
        """Counts for one unit of weight times value."""
        return self.most / (self.heaviest * self.range)

    def encode(self, values: npt.NDArray[np.float32], weight: int) -> Vector:
        """The counts of one hospital's update.

        Args:
            values: float32 [values].
            weight: what the hospital weighs, 1 to `heaviest`.

        Raises:
            FederationError: `secagg-range` for a value that is not finite or beyond the range, or such a weight.
        """
        if not 1 <= weight <= self.heaviest:
            raise _beyond("the weight of the site")
        out = np.empty(values.shape, dtype_of(self.bits))
        for begin in range(0, values.size, _PIECE):
            piece = values[begin : begin + _PIECE].astype(np.float64)
            if not bool(np.all(np.abs(piece) <= self.range)):
                raise _beyond("a value of the update")
            counts = np.clip(self._rounded(piece * (weight * self.scale)), -self.most, self.most)
            out[begin : begin + _PIECE] = counts.astype(np.int64).astype(out.dtype)
        cut(out, self.bits)
        return out

    def decode(self, total: Vector) -> npt.NDArray[np.float64]:
        """The sum over hospitals of weight times value; float64 [values]."""
        half = 1 << (self.bits - 1)
        signed = total.astype(np.int64)
        signed[signed >= half] -= 1 << self.bits
        return np.asarray(signed / self.scale, dtype=np.float64)

    def _rounded(self, exact: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.bits != 16:
            return np.asarray(np.rint(exact))
        chance = np.frombuffer(_random(4 * exact.size), np.uint32) * 2.0**-32
        return np.asarray(np.floor(exact + chance))


@dataclass(frozen=True)
class Head:
    """What travels exactly under the mask of a head, of one hospital or summed over several."""

    weight: int
    measured: int = 0
    """The weight of those who told how the incoming model did on their validation patients."""
    loss: float = 0.0
    """Sum of weight * loss over those."""
    auroc: float = 0.0
    judged: int = 0
    """Hospitals that compared the incoming model with the one before."""
    worse: int = 0
    """Of these, how many found it worse."""

    def encode(self) -> Vector:
        """uint64 [HEAD].

        Raises:
            FederationError: `secagg-range` for a figure that is not finite, negative or absurd.
        """
        figures = (self.loss / FIGURE, self.auroc / FIGURE)
        if not all(0 <= figure < 2.0**53 for figure in figures) or self.weight < 0:
            raise _beyond("a training figure")
        exact = (self.weight, self.measured, *(round(figure) for figure in figures), self.judged, self.worse)
        return np.array(exact, np.uint64)

    @classmethod
    def decode(cls, total: Vector) -> Head:
        """Of a sum; see `encode`."""
        if total.shape != (HEAD,):
            raise WrongOrder("head", "it is not one", "Admit the reply first")
        weight, measured, loss, auroc, judged, worse = (int(value) for value in total)
        return cls(weight, measured, loss * FIGURE, auroc * FIGURE, judged, worse)


def _random(count: int) -> bytes:
    """Random bytes, from a key of the operating system's generator; faster than asking it for all of them."""
    stream = Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), None).encryptor()
    return stream.update(bytes(count))


def _beyond(what: str) -> FederationError:
    remedy = "Nothing has left; raise federation.mask_range, or look why the update is so large"
    return FederationError(
        "secure aggregation", f"{what} is beyond what can be summed", remedy, code="secagg-range"
    )


def joined(arrays: Any) -> npt.NDArray[np.float32]:
    """All tensors of a model one behind the other, in its order; float32 [values]."""
    flat = [np.ascontiguousarray(array, np.float32).ravel() for array in arrays.values()]
    return np.concatenate(flat) if flat else np.zeros(0, np.float32)
