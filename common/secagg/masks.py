"""Masks in the integers modulo 2^b: ChaCha20 streams (RFC 8439) added to and taken from vectors, in pieces.

A vector of b = 16 is uint16; of 24 and 32 it is uint32, of which the upper byte is cut off at 24. The head of
an update, a few exact numbers, is uint64 under a stream of its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from common.secagg.keys import derived

Vector = npt.NDArray[np.unsignedinteger[Any]]
"""[values], uint16 or uint32; or a head, uint64."""
_PIECE: Final = 1 << 20
"""Values masked at a time: 4 MiB of stream stay in the cache, and memory does not grow with the model."""
_NONCE: Final = bytes(16)
"""Counter and nonce; a key is derived for one stream and used for that one only."""
_MASK_24: Final = np.uint32(0xFFFFFF)


def dtype_of(bits: int) -> np.dtype[Any]:
    """The type that holds one value of `bits` bits; 64 for a head."""
    return np.dtype({16: np.uint16, 24: np.uint32, 32: np.uint32, 64: np.uint64}[bits])


def add(vector: Vector, seed: bytes, bits: int, *, minus: bool = False) -> None:
    """Add the mask of a seed to a vector in place, or take it away.

    Args:
        vector: values below 2^bits; contiguous.
        seed: 32 bytes, derived for this mask alone.
        bits: 16, 24, 32; 64 for a head.
        minus: take it away.
    """
    stream = Cipher(algorithms.ChaCha20(derived(seed, b"", f"stream-{bits}"), _NONCE), None).encryptor()
    size = min(_PIECE, vector.size) * vector.dtype.itemsize
    zeros, room = bytes(size), bytearray(size)
    for begin in range(0, vector.size, _PIECE):
        piece = vector[begin : begin + _PIECE]
        stream.update_into(memoryview(zeros)[: piece.nbytes], memoryview(room)[: piece.nbytes])
        mask = np.frombuffer(room, vector.dtype, piece.size)
        (np.subtract if minus else np.add)(piece, mask, out=piece)
    cut(vector, bits)


def cut(vector: Vector, bits: int) -> None:
    """Bring a vector back into its ring, in place; the types do it by themselves but at 24 bits."""
    if bits == 24:
        np.bitwise_and(vector, _MASK_24, out=vector)


def to_wire(vector: Vector, bits: int) -> npt.NDArray[Any]:
    """The vector as it travels, little endian: 24-bit values take three bytes each, uint8 [3 * values]."""
    if bits != 24:
        return vector
    return np.ascontiguousarray(vector.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)[:, :3]).ravel()


def from_wire(array: npt.NDArray[Any], bits: int, values: int) -> Vector | None:
    """The vector of what travelled; None when it is not `values` values of `bits` bits."""
    if bits != 24:
        return array if array.dtype == dtype_of(bits) and array.shape == (values,) else None
    if array.dtype != np.uint8 or array.shape != (3 * values,):
        return None
    wide = np.zeros((values, 4), np.uint8)
    wide[:, :3] = array.reshape(-1, 3)
    return wide.view("<u4").ravel()
