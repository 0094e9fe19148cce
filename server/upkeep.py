"""What a federation's server does by itself, beside its api: nodes registered, certificates renewed.

A hospital that was admitted can connect within seconds, one that was revoked is taken out of the SuperLink, and the
edge's own certificate is renewed a month before it ends. What fails is tried again; nothing here waits for anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Self

from common.audit import AuditLog
from common.errors import ConsiliumError
from common.logs import Log
from server import edge, enrolment, nodes
from server.federation_folder import AUDIT, Consortium

_EVERY_S: Final = 3.0
"""How often the book is looked at; a glance of a millisecond."""
_AGAIN_S: Final = 600.0
"""How often the SuperLink is asked although nothing changed: its database may have been restored."""
_SETTLE_S: Final = 6 * 3600.0
_MENDED_S: Final = 60.0
"""A clock that jumps by more was mended, or went wrong: what was made by it may begin tomorrow."""
_LOG: Final = Log("server.upkeep")


class Upkeep:
    """A thread that looks after one federation while its block lasts."""

    def __init__(self, consortium: Consortium, clock: Callable[[], float] = time.monotonic) -> None:
        self._consortium = consortium
        self._clock = clock
        self._registered: frozenset[str] | None = None
        self._asked_at = self._settled_at = float("-inf")
        self._apart = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=_EVERY_S)

    def tick(self) -> None:
        """Do what is due now; whatever fails is due again."""
        for task in (self._settle, self._register):
            try:
                task()
            except ConsiliumError as error:
                _LOG.warning("upkeep.failed", code=error.code)

    def _run(self) -> None:
        while not self._ended.is_set():
            self.tick()
            self._ended.wait(_EVERY_S)

    def _settle(self) -> None:
        apart = time.time() - self._clock()
        if self._clock() - self._settled_at < _SETTLE_S and abs(apart - self._apart) < _MENDED_S:
            return
        if enrolment.settle(self._consortium):
            edge.reload(self._consortium)
        AuditLog(self._consortium.folder / AUDIT).forget(self._consortium.settings.audit.keep_years)
        self._settled_at, self._apart = self._clock(), apart

    def _register(self) -> None:
        wanted = frozenset(row.node for row in self._consortium.book.sites() if row.node)
        if wanted == self._registered and self._clock() - self._asked_at < _AGAIN_S:
            return
        nodes.register(self._consortium)
        self._registered, self._asked_at = wanted, self._clock()
