"""The one way by which fetched instances reach the inbox: in pace, durable, noted.

C-GET, C-MOVE and DICOMweb all end here, so that the rate limit, the order of writing (inbox first, journal after)
and the count are the same for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from client.pacs.inbox import BACKLOG, Inbox
from client.pacs.journal import Journal
from client.pacs.pace import Pace
from common.errors import PacsError, StorageError

MAX_INSTANCE_BYTES: Final = 2**31
"""As the listener's."""


class Arrivals:
    """Where instances of the series that is being fetched arrive; any thread may bring one."""

    def __init__(
        self, inbox: Inbox, journal: Journal, pace: Pace, arrived: Callable[[], None] | None = None
    ) -> None:
        """Begin with nothing.

        Args:
            inbox: where they go.
            journal: where they are noted.
            pace: how fast they may come.
            arrived: called after each new one.
        """
        self.inbox = inbox
        self.journal = journal
        self._pace = pace
        self._arrived = arrived or _nobody
        self._lock = threading.Lock()
        self.new = 0
        """Instances that were put into the inbox."""
        self.failure: StorageError | None = None
        """What the disk said when an instance was brought in a thread that cannot raise it."""

    def put(self, study: str, series: str, instance: str, pieces: Iterable[bytes]) -> None:
        """Write one instance, if it did not come before; it is on the disk, and then noted, when this returns.

        Args:
            study: study instance UID.
            series: series instance UID.
            instance: SOP instance UID.
            pieces: the file, with its preamble and meta.

        Raises:
            StorageError: the disk is full or refuses, or the inbox is full.
            PacsError: `pacs-size`; whatever the pieces raise.
        """
        if self.journal.has(instance):
            return
        self._pace.wait()
        check_room(self.inbox)
        draft = self.inbox.draft()
        try:
            for piece in pieces:
                draft.write(piece)
                _check_size(draft.bytes)
        except OSError:
            draft.discard()
            raise StorageError(
                "the inbox", "it cannot be written", "Check free space and rights", code="storage-full"
            ) from None
        except BaseException:
            draft.discard()
            raise
        self.inbox.keep(draft, study, instance)
        self.note(series, instance)

    def wait(self) -> None:
        """Come back when one more may come; for instances that somebody else writes."""
        self._pace.wait()

    def note(self, series: str, instance: str) -> None:
        """Say that an instance is on the disk of the inbox."""
        self.journal.note(series, instance)
        with self._lock:
            self.new += 1
        self._arrived()


def check_room(inbox: Inbox) -> None:
    """Go on only while the inbox takes more.

    Raises:
        StorageError: `inbox-backlog` or `inbox-disk`.
    """
    why = inbox.full()
    if why == BACKLOG:
        raise StorageError(
            "the inbox",
            "more instances wait in it than pacs.listen.backlog allows",
            "Take them in first, or raise the number; then repeat the same command",
            code="inbox-backlog",
        )
    if why:
        raise StorageError(
            "the inbox",
            "less disk is free than pacs.listen.floor_gib asks for",
            "Free space, then repeat the same command: it goes on from here",
            code="inbox-disk",
        )


def _check_size(size: int) -> None:
    if size > MAX_INSTANCE_BYTES:
        raise PacsError(
            "an instance",
            "it is larger than 2 GiB",
            "Leave it out; nothing of that size is taken in",
            code="pacs-size",
        )


def _nobody() -> None:
    """Tell nobody."""
