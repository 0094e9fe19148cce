"""Connections of senders that nobody knows yet: bounded in size and time before anything is understood.

pynetdicom reads a protocol data unit as long as its header says, up to 4 GiB, and waits for it for ever; a TLS
handshake holds up everybody. Here a unit is at most 2 MiB, it must be whole within a minute, and each handshake
runs in its own thread against the clock.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pynetdicom.transport import ThreadedAssociationServer

from client.pacs.settings import Tls
from common.errors import SettingsError
from common.logs import Log

MAX_UNIT_BYTES: Final = 2**21
"""A unit may be so long; we ask senders for 128 KiB, and some send a little more than asked."""
UNIT_TIME_S: Final = 60.0
SILENCE_S: Final = 30.0
"""One receive or send may wait so long."""
SPARE: Final = 16
"""Connections held beyond the associations allowed, so that those are refused by name and not by silence."""
_HEADER: Final = struct.Struct(">BxI")
_LOG: Final = Log("client.pacs")


class _Bounded:
    """A socket that follows the units passing through it; mixed into both kinds of socket.

    The reader asks for the six bytes of a header, then for the rest in pieces. The rest is fetched in as few
    calls as may be and handed out from memory, never beyond the unit's end: the reader looks at the socket itself
    to know whether there is more.
    """

    _left = 0
    _until = 0.0
    _held = b""
    _at = 0
    condemned = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As a socket's.

        Raises:
            OSError: the unit is too long or too slow, or the connection is condemned.
        """
        if self.condemned:
            raise ConnectionAbortedError
        if not self._left and self._at == len(self._held):
            return self._header(size, flags)
        if self._at == len(self._held):
            if time.monotonic() > self._until:
                raise TimeoutError
            self._held, self._at = super().recv(min(self._left, 2**18), flags), 0  # type: ignore[misc]  # the socket's
            self._left -= len(self._held)
        piece = self._held[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def shutdown(self, how: int) -> None:
        """As a socket's; one that the other side has left is shut down already, and must still be closed."""
        with suppress(OSError):
            super().shutdown(how)  # type: ignore[misc]  # the socket's

    def _header(self, size: int, flags: int) -> bytes:
        head = b""
        until = time.monotonic() + SILENCE_S
        while len(head) < size:
            more: bytes = super().recv(size - len(head), flags)  # type: ignore[misc]  # the socket's
            head += more
            if not more or time.monotonic() > until:
                return head
        if len(head) == _HEADER.size:
            self._left = _HEADER.unpack(head)[1]
            self._until = time.monotonic() + UNIT_TIME_S
            if self._left > MAX_UNIT_BYTES:
                _LOG.warning("pacs.unit_too_long")
                raise ConnectionAbortedError
        return head


class Plain(_Bounded, socket.socket):
    """A connection in the clear."""


class Encrypted(_Bounded, ssl.SSLSocket):  # type: ignore[misc]  # it calls a size a buflen
    """A connection under TLS."""


class Server(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom is not typed for us
    """pynetdicom's server with bounded connections, and without tracebacks on stderr.

    Threads of connections end by themselves; `limit` counts those that hold an association or ask for one.
    """

    daemon_threads = True
    request_queue_size = 64
    limit: int

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection; TLS shakes hands later, in the connection's own thread."""
        accepted, address = self.socket.accept()
        if self.ssl_context is None:
            connection: socket.socket = Plain(fileno=accepted.detach())
        else:
            connection = self.ssl_context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        connection.settimeout(SILENCE_S)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's
        """Whether there is room for one more connection."""
        if len(self.active_associations) < self.limit + SPARE:
            return True
        _LOG.warning("pacs.connection_refused", code="too-many")
        return False

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands where that is due, then let pynetdicom serve."""
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except (OSError, ValueError):
                _LOG.warning("pacs.connection_refused", code="tls")
                self.shutdown_request(request)
                return
        super().finish_request(request, client_address)

    def cut(self) -> None:
        """End every connection that is still open."""
        for association in self.active_associations:
            link = association.dul.socket
            if link is not None and link.socket is not None:
                with suppress(OSError):
                    link.socket.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's
        """Note that a connection failed; what it sent is not repeated."""
        _LOG.warning("pacs.connection_failed")


def server_tls(settings: Tls, folder: Path) -> ssl.SSLContext | None:
    """TLS 1.2 or later in which both sides show a certificate; None when none is set.

    Args:
        settings: `[pacs.listen.tls]`.
        folder: to which the names of the files are relative.

    Raises:
        SettingsError: only some of the three files are named, or one cannot be used.
    """
    files = (settings.certificate, settings.key, settings.authorities)
    if not any(files):
        return None
    if not all(files):
        raise _tls_error("certificate, key and authorities belong together", "Name all three files, or none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslsocket_class = Encrypted
    try:
        context.load_cert_chain(folder / settings.certificate, folder / settings.key)
        context.load_verify_locations(folder / settings.authorities)
    except (OSError, ValueError):
        raise _tls_error(
            "a certificate or key cannot be read, or they do not belong together",
            "Check the three PEM files and their rights",
        ) from None
    return context


def _tls_error(rule: str, remedy: str) -> SettingsError:
    return SettingsError("pacs.listen.tls", rule, remedy)
