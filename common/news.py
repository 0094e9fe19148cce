"""What is worth another look: requests that wait for it are told, and so is this process's own loop.

A request that is held (`common.shortway`) waits for a topic in its event loop; what it waits for comes with another request, or
from another thread of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Waiting:
    """Which requests wait for what; used in their event loop only."""

    _for: dict[str, set[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(set))

    @contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when there is news."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._for[topic].add(future)
        try:
            yield future
        finally:
            self._for[topic].discard(future)
            if not self._for[topic]:
                del self._for[topic]

    def tell(self, topics: Iterable[str]) -> None:
        """There is news of these."""
        for topic in topics:
            for future in self._for.get(topic, ()):
                if not future.done():
                    future.set_result(None)


class News:
    """What is worth another look, between requests and this process's other threads: both ways, and nobody asks in between."""

    def __init__(self) -> None:
        self._listeners: list[tuple[asyncio.AbstractEventLoop, Waiting]] = []
        self._changed = threading.Condition()
        self._count = 0
        self._mine = threading.local()

    def tell(self, *topics: str) -> None:
        """From any thread: whoever's request waits for one of these looks again."""
        for loop, waiting in self._listeners:
            with suppress(RuntimeError):  # a server that has stopped
                loop.call_soon_threadsafe(waiting.tell, topics)

    def wait(self, seconds: float) -> None:
        """In a thread: sleep until a request with news was answered, at most so long.

        It ends at once for news since this thread last waited; who looks, then waits, then looks misses none.
        """
        seen = getattr(self._mine, "seen", 0)
        with self._changed:
            self._changed.wait_for(lambda: self._count != seen, seconds)
            self._mine.seen = self._count

    def came(self) -> None:
        """A request with news was answered."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def listen(self, waiting: Waiting) -> None:
        """In an event loop: the requests that wait there are told from now on."""
        self._listeners.append((asyncio.get_running_loop(), waiting))
