"""Data sets on their way from the network to the disk, without passing through memory as a whole.

pynetdicom collects a data set in a BytesIO. Here that BytesIO is a `Spool`, which writes to a draft in the inbox
as the pieces come, and holds none.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage

from client.pacs.inbox import Draft, Inbox
from client.pacs.part10 import preface
from common.errors import StorageError
from common.logs import Log

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
"""The sender keeps the instance and tries again (PS3.4 B.2.3)."""
CANNOT_UNDERSTAND: Final = 0xC000
MAX_INSTANCE_BYTES: Final = 2**31
"""An instance may be so large; the parser behind would refuse it long before."""
_LOOK_EVERY: Final = 2**24
"""Bytes after which free disk is looked at again."""
_MAX_COMMAND_BYTES: Final = 2**16
_MAX_WAITING: Final = 4
"""Messages a sender may have under way; we allow one, and some count differently."""
_LOG: Final = Log("client.pacs")


class Spool(io.BytesIO):
    """One data set. What is refused is read to its end and dropped, so that the sender gets its answer."""

    def __init__(
        self,
        inbox: Inbox,
        head: Callable[[], bytes],
        turned_away: Callable[[str], None],
        limit: int = MAX_INSTANCE_BYTES,
    ) -> None:
        super().__init__()
        self._limit = limit
        self._inbox = inbox
        self._head = head
        self._turned_away = turned_away
        self._begun = False
        self._looked = 0
        self.received = 0
        self.offset = 0
        """Bytes before the data set in the draft."""
        self.status = SUCCESS
        self.draft: Draft | None = None

    def write(self, data: Any) -> int:
        """Take a piece in; the first one begins the draft."""
        if not self._begun:
            self._begun = True
            self._begin()
        self.received += len(data)
        if (draft := self.draft) is not None:
            self._put(draft, data)
        return len(data)

    def _begin(self) -> None:
        try:
            if why := self._inbox.full():
                self._refuse(OUT_OF_RESOURCES, why)
                return
            self.draft = self._inbox.draft()
            head = self._head()
            self.offset = len(head)
            self.draft.write(head)
        except (StorageError, OSError):
            self._refuse(OUT_OF_RESOURCES, "disk")
        except Exception:  # noqa: BLE001 - a malformed command set; the association must answer, not die
            self._refuse(CANNOT_UNDERSTAND, "command")

    def _put(self, draft: Draft, data: bytes) -> None:
        if self.received > self._limit:
            self._refuse(CANNOT_UNDERSTAND, "too-large")
            return
        try:
            draft.write(data)
            if self.received - self._looked >= _LOOK_EVERY:
                self._looked = self.received
                if self._inbox.below_floor():
                    self._refuse(OUT_OF_RESOURCES, "disk-floor")
        except (StorageError, OSError):
            self._refuse(OUT_OF_RESOURCES, "disk")

    def _refuse(self, status: int, why: str) -> None:
        self.status = status
        self.drop()
        self._turned_away(why)

    def drop(self) -> None:
        """Forget the draft."""
        if self.draft is not None:
            self.draft.discard()
            self.draft = None


class Provider(DIMSEServiceProvider):  # type: ignore[misc]  # pynetdicom is not typed for us
    """pynetdicom's receiver of messages, with data sets that go to disk and limits on everything else."""

    def __init__(self, assoc: Any, inbox: Inbox, turned_away: Callable[[str], None]) -> None:
        super().__init__(assoc)
        self.message: Any = None
        self._inbox = inbox
        self._turned_away = turned_away
        self._command_bytes = 0

    def receive_primitive(self, primitive: Any) -> None:
        """Take one unit of a message."""
        if self.message is None:
            self._command_bytes = 0
            message = DIMSEMessage()
            message.data_set = Spool(self._inbox, lambda: self._head(message), self._turned_away)
            self.message = message
        self._command_bytes += sum(
            len(data) for _, data in primitive.presentation_data_value_list if data and data[0] & 1
        )
        spool = self.message.data_set
        super().receive_primitive(primitive)
        endless = isinstance(spool, Spool) and spool.received > 2 * MAX_INSTANCE_BYTES
        if endless or self._command_bytes > _MAX_COMMAND_BYTES or self.msg_queue.qsize() > _MAX_WAITING:
            self.condemn()

    def forget(self) -> None:
        """Drop what an association that ended left unfinished."""
        spools = [self.message.data_set] if self.message is not None else []
        while (waiting := self.get_msg()) != (None, None):
            spools.append(getattr(waiting[1], "DataSet", None))
        for spool in spools:
            if isinstance(spool, Spool):
                spool.drop()

    def condemn(self) -> None:
        """End the association at its next piece."""
        _LOG.warning("pacs.association_condemned")
        connection = self.dul.socket.socket if self.dul.socket else None
        if connection is not None:
            connection.condemned = True

    def _head(self, message: Any) -> bytes:
        """Preamble and file meta, from the command set and the negotiated context."""
        context = next(one for one in self.assoc.accepted_contexts if one.context_id == message.context_id)
        command = message.command_set
        return preface(
            str(command.AffectedSOPClassUID),
            str(command.AffectedSOPInstanceUID),
            str(context.transfer_syntax[0]),
        )
