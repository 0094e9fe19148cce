"""Noise made ahead: while one step computes gradients, another thread makes the next step's noise."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

import numpy as np

from client.privacy.noise import Float64, NoiseSource

_BUFFERS: Final = 2
"""One in the hands of the step, one being filled."""


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
        self._std = std
        self._left = vectors
        self._buffers = [np.empty(count) for _ in range(min(vectors, _BUFFERS))]
        self._turn = 0
        self._hand = ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise")
        self._next: Future[Float64] | None = None
        self._begin()

    def __enter__(self) -> Self:
        """Use as `with NoiseAhead(...) as noise`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the vector in the making, and forget it."""
        self._hand.shutdown(cancel_futures=True)

    def take(self) -> Float64:
        """The next vector, float64 [count]; it is overwritten after the next call.

        Raises:
            IndexError: all vectors were handed out.
        """
        if self._next is None:
            raise IndexError("no more noise was asked for")
        ready = self._next.result()
        self._begin()
        return ready

    def _begin(self) -> None:
        if not self._left:
            self._next = None
            return
        out = self._buffers[self._turn % len(self._buffers)]
        self._left, self._turn = self._left - 1, self._turn + 1
        self._next = self._hand.submit(self._source.fill, out, self._std)
