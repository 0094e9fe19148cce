"""The C-STORE listener: named senders put instances into the inbox, as they are.

Laws, in order:
1. Nothing of a data set is decoded here beyond the place of its study instance UID: the limited worker parses.
2. Success is answered only for what `Inbox.keep` has on the disk. Anything else is a failure status, so that the
   sender keeps the instance.
3. Called and calling AE title must both be right; under TLS the certificate too.
4. No line of a log names a patient, an instance or what a sender said.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import RequestHandler

from client.pacs.connection import SPARE, Server, server_tls
from client.pacs.inbox import BACKLOG, DISK, Inbox
from client.pacs.part10 import study_uid
from client.pacs.spool import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Provider, Spool
from client.site import Site
from common.audit import AuditLog
from common.errors import SettingsError, StorageError
from common.logs import Log

UNIT_BYTES: Final = 2**17
"""The protocol data unit that senders are asked for: eight times the usual, for fewer turns."""
ASK_S: Final = 30.0
"""From the connection to the request for an association."""
IDLE_S: Final = 300.0
"""An association on which nothing comes for so long is ended."""
_POLL_S: Final = 0.1
_TRANSIENT: Final = frozenset(("stopping", "too-many"))
"""Reasons that pass, so that the sender tries again; pynetdicom itself refuses wrong titles, for good."""
_LOG: Final = Log("client.pacs")


@dataclass
class Counts:
    """What came since the start."""

    received: int = 0
    again: int = 0
    """Instances that were there already."""
    refused: Counter[str] = field(default_factory=Counter)
    """Instances and associations turned away, by reason."""


class Listener:
    """One listening site; a context manager that stops as `stop` does.

    Args:
        site: settings and audit log.
        inbox: where instances go.

    Raises:
        SettingsError: no sender is allowed, or the certificates cannot be used.
    """

    def __init__(self, site: Site, inbox: Inbox) -> None:
        settings = site.pacs.listen
        if not settings.calling:
            raise SettingsError(
                "pacs.listen.calling",
                "no sender is named, so nobody could send",
                "Name the AE titles that may send",
            )
        self._settings = settings
        self._inbox = inbox
        self._audit = AuditLog(site.audit)
        self._lock = threading.Lock()
        self._full = ""
        self._held: list[tuple[Any, str]] = []
        self._draining = False
        self._tls = server_tls(settings.tls, site.folder)
        self.counts = Counts()
        self._entity = _entity(site)
        self._server: Server | None = None
        self._restore: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> int:
        """Listen; returns the port.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        self._restore = quieten()
        inbox, turned_away = self._inbox, self._turned_away

        class Handler(RequestHandler):  # type: ignore[misc]  # pynetdicom is not typed for us
            """Gives each association the receiver that writes to disk."""

            def _create_association(self) -> Any:
                """As pynetdicom's, with our receiver of messages."""
                assoc = super()._create_association()
                assoc.dimse = Provider(assoc, inbox, turned_away)
                return assoc

        address = (self._settings.host, self._settings.port)
        try:
            server = self._entity.make_server(
                address,
                ssl_context=self._tls,
                evt_handlers=self._handlers(),
                server_class=Server,
                request_handler=Handler,
            )
        except OSError:
            self._restore()
            raise SettingsError(
                "pacs.listen",
                "this address cannot be listened on",
                "Choose a free port and an address of this machine",
            ) from None
        server.limit = self._settings.max_associations
        threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), daemon=True, name="pacs-accept"
        ).start()
        self._entity._servers.append(server)  # noqa: SLF001 - as AE.start_server does; shutdown looks there
        self._server = server
        port = self.port
        _LOG.info("pacs.listening", port=port)
        self._audit.append("pacs.listening", port=port)
        return port

    @property
    def port(self) -> int:
        """The port listened on; 0 when it does not listen."""
        return 0 if self._server is None else int(self._server.server_address[1])

    @property
    def active(self) -> int:
        """Associations held now; strangers that only connected do not count."""
        with self._lock:
            self._held = [(one, title) for one, title in self._held if _lives(one)]
            return len(self._held)

    def stop(self, grace_s: float = 30.0) -> None:
        """Accept no more associations, let those open end, cut what is left after the grace, close."""
        if self._server is None:
            return
        self._draining = True
        until = time.monotonic() + grace_s
        while self.active and time.monotonic() < until:
            time.sleep(_POLL_S)
        self._server.shutdown()
        self._server.cut()
        self._server = None
        self._restore()
        _LOG.info("pacs.stopped", count=self.counts.received)
        self._audit.append("pacs.stopped", count=self.counts.received)

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ABORTED, lambda event: event.assoc.dimse.forget()),
            (evt.EVT_CONN_CLOSE, lambda event: event.assoc.dimse.forget()),
        ]

    def _store(self, event: Any) -> int:
        """Keep one instance; the status is the sender's to act on."""
        spool = event.request.DataSet
        if not isinstance(spool, Spool) or spool.draft is None:
            return getattr(spool, "status", SUCCESS) or CANNOT_UNDERSTAND
        draft = spool.draft
        try:
            with draft.path.open("rb") as file:
                file.seek(spool.offset)
                study = study_uid(file, str(event.context.transfer_syntax))
            new = self._inbox.keep(
                draft, study or self._nameless(event.assoc), str(event.request.AffectedSOPInstanceUID)
            )
        except (StorageError, OSError):
            spool.drop()
            self._turned_away("disk")
            return OUT_OF_RESOURCES
        with self._lock:
            self.counts.received += new
            self.counts.again += not new
        self._room()
        return SUCCESS

    def _nameless(self, association: Any) -> str:
        """The study of instances that do not say theirs: all of one association together."""
        return f"association {id(association)} {association.name} {_PROCESS}"

    def _requested(self, event: Any) -> None:
        """Turn away, by a transient rejection, what settings allow but the moment does not; name the others."""
        why = self._why_not(event.assoc)
        if not why:
            return
        self._count(why)
        _LOG.warning("pacs.association_refused", code=why)
        if why in _TRANSIENT:
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)
            event.assoc.is_rejected = True  # pynetdicom then negotiates no further
            event.assoc.kill()

    def _why_not(self, association: Any) -> str:
        """Why an association is not held; empty, and it is counted, when it is."""
        request = association.requestor.primitive
        sender = str(request.calling_ae_title).strip()
        if sender not in self._settings.calling:
            return "calling"
        if str(request.called_ae_title).strip() != self._entity.ae_title:
            return "called"
        if self._draining:
            return "stopping"
        with self._lock:
            self._held = [(one, title) for one, title in self._held if _lives(one)]
            if len(self._held) >= self._settings.max_associations:
                return "too-many"
            if sum(title == sender for _, title in self._held) >= self._settings.max_per_sender:
                return "too-many"
            self._held.append((association, sender))
        return ""

    def _count(self, why: str) -> None:
        with self._lock:
            self.counts.refused[why] += 1

    def _turned_away(self, why: str) -> None:
        """Count an instance refused; the first for want of room opens an episode, and is told."""
        self._count(why)
        with self._lock:
            begins = why in (DISK, BACKLOG) and not self._full
            self._full = why if begins else self._full
        if begins:
            _LOG.warning("pacs.full", code=why)
            self._audit.append("pacs.full", code=why)

    def _room(self) -> None:
        """Something was accepted: an episode, if there was one, is over."""
        with self._lock:
            why, self._full = self._full, ""
        if why:
            _LOG.info("pacs.room_again", code=why)
            self._audit.append("pacs.room_again", code=why, count=self.counts.refused[why])


def _lives(association: Any) -> bool:
    ended = association.is_released or association.is_aborted or association.is_rejected
    return association.is_alive() and not ended


def _entity(site: Site) -> AE:
    """The application entity: verification, and storage of every kind in every transfer syntax."""
    entity = AE(ae_title=site.pacs.ae_title)
    entity.add_supported_context(Verification)
    entity.require_called_aet = True
    entity.require_calling_aet = list(site.pacs.listen.calling)
    entity.maximum_associations = site.pacs.listen.max_associations + SPARE  # `_why_not` counts more exactly
    entity.maximum_pdu_size = UNIT_BYTES
    entity.acse_timeout = ASK_S
    entity.dimse_timeout = ASK_S
    entity.network_timeout = IDLE_S
    return entity


def quieten() -> Callable[[], None]:
    """Let pynetdicom say nothing, decode nothing for its logs, and accept every storage class.

    Its messages quote what a sender sent. The settings are of the whole process; call what is returned to have
    them as they were.
    """
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("pynetdicom", "pydicom"))}
    before = (_config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE = "none", True

    def restore() -> None:
        """As it was."""
        _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE = before
        for logger, level in loggers.items():
            logger.setLevel(level)

    return restore


_PROCESS: Final = secrets.token_hex(8)
