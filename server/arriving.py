"""Replies on their way: heard of, fetched beside what the server does with others, and given when they are whole.

Flower's SuperLink hands a reply out as soon as a node has begun to send it, and once only. Here it is fetched from then on, object
by object as they come, a few replies at a time; the server works meanwhile on those that are there. Nobody waits for one whose
node was killed while it sent: it counts as come when its last object has, others are fetched in its place, and a node that
is there again says so and is asked again (`server.asking`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from flwr.app import Message as Reply
from flwr.proto.message_pb2 import Message, ObjectTree
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

Announced = tuple[Message, ObjectTree]
"""A reply's envelope, and the numbers of what it is made of."""
Fetch = Callable[[str], bytes]
"""Gives an object's content by its number."""
TOGETHER: Final = 3
"""Replies that are fetched at once, with one object of each in memory, whatever the number of hospitals."""
LOOK_S: Final = 0.5
"""So long is waited for a reply, unless one is there."""
_PATIENT_S: Final = 1.0
"""An object that has not come for so long: another reply is fetched meanwhile."""
_ASIDE_S: Final = 0.5
_POLL_S: Final = 0.02


@dataclass
class _Coming:
    """One reply that was announced."""

    announced: Announced
    came: Reply | None = None
    error: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether there is something to give."""
        return self.came is not None or self.error is not None


class Arriving:
    """Replies to questions, each announced once only and given once.

    Args:
        look: asks for announcements of replies to questions of these numbers; may take a while.
        pull: an object's content; raises Flower's `ObjectUnavailableError` where it has not come yet.
        fetched: makes the reply of an announcement, with what gives it its objects; in a thread of its own.
    """

    def __init__(
        self,
        look: Callable[[Collection[str]], Iterable[Announced]],
        pull: Fetch,
        fetched: Callable[[Announced, Fetch], Reply],
    ) -> None:
        self._look = look
        self._pull = pull
        self._fetched = fetched
        self._changed = threading.Condition()
        self._places = threading.Semaphore(TOGETHER)
        self._coming: dict[str, list[_Coming]] = {}
        self._looked: set[str] = set()
        """Numbers of questions that a thread is asking for."""
        self._failed: Exception | None = None

    def replies(self, asked: Sequence[str]) -> Iterator[Reply]:
        """Those replies to these questions that are whole, waited for a moment where there is none.

        Raises:
            Whatever `look` or `fetched` raised.
        """
        with self._changed:
            unheard = [n for n in asked if n not in self._coming and n not in self._looked]
            if unheard:
                self._looked.update(unheard)
                self._begin(self._ask, unheard)
            self._changed.wait_for(lambda: self._worth(asked), LOOK_S)
        while (coming := self._next(asked)) is not None:
            if coming.error is not None:
                raise coming.error
            if coming.came is not None:
                yield coming.came

    def _worth(self, asked: Sequence[str]) -> bool:
        """Whether there is something to give, or nothing to wait for."""
        if self._failed is not None:
            return True
        coming = [one for number in asked for one in self._coming.get(number, ())]
        if any(one.ended for one in coming):
            return True
        return not coming and not self._looked.intersection(asked)

    def _next(self, asked: Sequence[str]) -> _Coming | None:
        with self._changed:
            if (failed := self._failed) is not None:
                self._failed = None
                raise failed
            for number in asked:
                for one in self._coming.get(number, ()):
                    if one.ended:
                        self._coming[number].remove(one)
                        if not self._coming[number]:
                            del self._coming[number]
                        return one
        return None

    def _begin(self, work: Callable[..., None], *parts: object) -> None:
        # Nobody waits at the server's end for a hospital's reply that will never be whole.
        threading.Thread(target=work, args=parts, daemon=True).start()

    def _ask(self, numbers: list[str]) -> None:
        try:
            found = list(self._look(numbers))
            failed = None
        except Exception as error:  # noqa: BLE001 - raised where the replies are asked for
            found, failed = [], error
        with self._changed:
            self._looked.difference_update(numbers)
            self._failed = failed or self._failed
            for announced in found:
                coming = _Coming(announced)
                self._coming.setdefault(announced[0].metadata.reply_to_message_id, []).append(coming)
                self._begin(self._fetch, coming)
            self._changed.notify_all()

    def _fetch(self, coming: _Coming) -> None:
        came, failed = None, None
        with self._places:
            try:
                came = self._fetched(coming.announced, self._patiently)
            except Exception as error:  # noqa: BLE001 - as above
                failed = error
        with self._changed:
            coming.came, coming.error = came, failed
            self._changed.notify_all()

    def _patiently(self, number: str) -> bytes:
        """An object's content when it has come; while it does not, another reply may be fetched."""
        began = time.monotonic()
        while True:
            try:
                return self._pull(number)
            except ObjectUnavailableError:
                if time.monotonic() - began < _PATIENT_S:
                    time.sleep(_POLL_S)
                    continue
            self._places.release()
            try:
                time.sleep(_ASIDE_S)
            finally:
                self._places.acquire()
