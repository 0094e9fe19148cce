"""How fast an archive is asked: a token bucket that everything passes on its way into the inbox.

A C-STORE that waits here is not answered yet, and a stream that waits here is not read, so that the archive
waits too: the limit holds for C-GET, C-MOVE and DICOMweb alike.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

BURST_S: Final = 0.2
"""What may come at once after a pause, in seconds of the rate; at least one instance."""


class Clock(Protocol):
    """Time as the bucket sees it."""

    def now(self) -> float:
        """Seconds since any fixed moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Come back later."""
        ...


class SystemClock:
    """The real one."""

    def now(self) -> float:
        """The monotonic clock, in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


class Pace:
    """At most `rate` instances a second in the long run; threads wait in turn."""

    def __init__(self, rate: float, clock: Clock | None = None) -> None:
        """Begin with a full bucket.

        Args:
            rate: instances a second, above 0.
            clock: the system's when None.
        """
        self._rate = rate
        self._depth = max(1.0, rate * BURST_S)
        self._clock = clock or SystemClock()
        self._tokens = self._depth
        self._seen = self._clock.now()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when one more instance may come."""
        with self._lock:
            self._refill()
            if self._tokens < 1:
                self._clock.sleep((1 - self._tokens) / self._rate)
                self._refill()
            # A sleep that was a little short is owed, not forgiven.
            self._tokens -= 1

    def _refill(self) -> None:
        now = self._clock.now()
        self._tokens = min(self._depth, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
