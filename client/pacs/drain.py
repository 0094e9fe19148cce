"""Room in the inbox for a pull or a watch: what is there is taken in, unless a listener does that already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.pacs.arrivals import check_room
from client.pacs.inbox import Inbox
from client.pacs.take import Taken, Taker, Taking, alone
from client.site import Site
from common.errors import StorageError


@dataclass
class Drain:
    """Takes in what a pull brought; between two studies every study in the inbox is whole.

    Args:
        site: the hospital.
        inbox: where studies wait.
        labels: table of labels, if any.
        workers: processes; all cores when None.
        take: False when nothing shall be taken in here.
    """

    site: Site
    inbox: Inbox
    labels: Path | None = None
    workers: int | None = None
    take: bool = True

    def __post_init__(self) -> None:
        self._taker = Taker(self.site, self.inbox, Taking(0.0, self.labels, self.workers))

    @property
    def taken(self) -> Taken:
        """What was taken in so far."""
        return self._taker.taken

    def room(self) -> None:
        """Return when the inbox takes more.

        Raises:
            StorageError: it does not, and nothing could be taken in.
        """
        try:
            check_room(self.inbox)
        except StorageError as error:
            if error.code != "inbox-backlog" or not self.run():
                raise
            check_room(self.inbox)

    def run(self) -> bool:
        """Take in everything that waits; False when this is not our task, or another process is doing it.

        Raises:
            ConsiliumError: what holds a study up; it stays in the inbox.
        """
        if not self.take:
            return False
        try:
            with alone(self.inbox):
                while self._taker.turn():
                    pass
        except StorageError as error:
            if error.code == "storage-busy":
                return False
            raise
        if self.taken.error is not None:
            raise self.taken.error
        return True
