"""Noise made ahead: while one step computes gradients, another thread makes the noise that it will need.

It waits in chunks, and no more of it than `MOST_AHEAD`: a whole vector in double precision would take twice the
memory of the gradients themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from client.privacy.noise import CHUNK, Float64, NoiseSource
from common.errors import WrongOrder

MOST_AHEAD: Final = 1 << 21
"""Numbers that wait at most (16 MiB), whatever the network: a small one finds its whole noise ready."""


class NoiseAhead:
    """Gaussian vectors of one size and scale, each handed out once; a context manager.

    It has a source of its own, because a keystream cannot serve two threads.

    Args:
        count: numbers a vector.
        std: standard deviation.
        vectors: how many will be asked for; no more are made.
        source: used by nobody else; a new one when None.
    """

    def __init__(self, count: int, std: float, vectors: int, source: NoiseSource | None = None) -> None:
        self._source = source or NoiseSource()
        self._count, self._std = count, std
        self._left = vectors
        self._whole = True
        self._empty: SimpleQueue[Float64 | None] = SimpleQueue()
        self._ready: SimpleQueue[Float64 | BaseException] = SimpleQueue()
        chunks = -(-count // CHUNK)
        for _ in range(min(vectors * chunks, MOST_AHEAD // CHUNK)):
            self._empty.put(np.empty(min(count, CHUNK)))
        self._hand = Thread(target=self._make, args=(vectors,), name="noise", daemon=True)
        self._hand.start()

    def __enter__(self) -> Self:
        """Use as `with NoiseAhead(...) as noise`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the chunk in the making, and forget all of it."""
        while not self._empty.empty():
            self._empty.get()
        self._empty.put(None)
        self._hand.join()

    def take(self) -> Iterator[Float64]:
        """The next vector, a chunk at a time in order; each is overwritten when the next is asked for.

        Raises:
            IndexError: all vectors were handed out.
            WrongOrder: the vector before was not taken to its end, so that what follows is not where it seems.
        """
        if not self._left:
            raise IndexError("no more noise was asked for")
        if not self._whole:
            raise WrongOrder("privacy noise", "a vector of it was left half taken", "Make a new NoiseAhead")
        self._left, self._whole = self._left - 1, False
        return self._chunks()

    def _chunks(self) -> Iterator[Float64]:
        for start in range(0, self._count, CHUNK):
            found = self._ready.get()
            if isinstance(found, BaseException):
                raise found
            yield found[: self._count - start]
            self._empty.put(found)
        self._whole = True

    def _make(self, vectors: int) -> None:
        try:
            for _ in range(vectors):
                for start in range(0, self._count, CHUNK):
                    room = self._empty.get()
                    if room is None:
                        return
                    self._source.fill(room[: self._count - start], self._std)
                    self._ready.put(room)
        except BaseException as error:  # noqa: BLE001 (it belongs to whoever waits for the noise)
            self._ready.put(error)


def noised(total: Tensor, noise: Iterable[Float64], divisor: float, out: Tensor) -> Tensor:
    """(total + noise) / divisor, added and divided in double precision, then rounded to the precision of `out`.

    Args:
        total: [numbers], of any precision and on any device.
        noise: chunks in order, as many numbers.
        divisor: of the mean; public.
        out: [numbers]; may be `total` itself.

    Returns:
        `out`.
    """
    start = 0
    for chunk in noise:
        place = slice(start, start + len(chunk))
        sums = total[place].to(device="cpu", dtype=torch.float64)
        out[place] = sums.add_(torch.from_numpy(chunk)).div_(divisor).to(out.device)
        start = place.stop
    if start != len(total):
        raise WrongOrder("privacy noise", "there is not one number of it for every coordinate", "Report this")
    return out
