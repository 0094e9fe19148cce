"""Associations with an archive: opened, named when they fail, closed. Everything of pynetdicom's errors ends here."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification

from client.pacs.failures import bad_status, lost, timed_out, tls_failed, unreachable
from client.pacs.remote import Caller, client_tls, uses_tls
from common.errors import PacsError

CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0
"""An archive may fetch from tape before it answers; longer than this is a timeout."""
_WHERE: Final = "DICOM"
_AE_TITLE: Final = (3, 7)
"""Diagnostics of A-ASSOCIATE-RJ (PS3.8 table 9-21): calling, called AE title not recognized."""

# Its messages may hold identifiers, and none of them is needed: every outcome is judged here.
for _library in ("pynetdicom", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Offer:
    """What an association asks for."""

    contexts: Sequence[PresentationContext]
    roles: Sequence[Any] = ()
    handlers: Sequence[Any] = field(default=(), repr=False)


@contextmanager
def associated(caller: Caller, offer: Offer) -> Iterator[Association]:
    """An association for the time of a block.

    Raises:
        PacsError: `pacs-unreachable`, `pacs-tls`, `pacs-ae-title`, `pacs-refused`, `pacs-unsupported`.
    """
    association = open_association(caller, offer)
    try:
        yield association
    finally:
        close_association(association)


def open_association(caller: Caller, offer: Offer) -> Association:
    """An association that the caller must close; see `associated`."""
    if not caller.dimse:
        raise PacsError(
            f"remote {caller.name}",
            "site.toml gives it no AE title, host and port",
            "Complete its [[pacs.remotes]] section, or use its DICOMweb: --via web",
            code="pacs-unsupported",
        )
    entity = AE(ae_title=caller.ae_title)
    entity.requested_contexts = list(offer.contexts)
    entity.connection_timeout = entity.acse_timeout = CONNECT_S
    entity.dimse_timeout = entity.network_timeout = ANSWER_S
    remote = caller.remote
    tls = (client_tls(caller, remote.tls), remote.host) if uses_tls(remote.tls) else None
    association = entity.associate(
        remote.host,
        remote.port,
        ae_title=remote.ae_title,
        ext_neg=list(offer.roles),
        evt_handlers=list(offer.handlers),
        tls_args=tls,
    )
    if not association.is_established:
        raise _why(caller, association)
    _answer_at_once(association)
    return association


def close_association(association: Association) -> None:
    """Release it, or give it up where it does not listen any more."""
    with suppress(Exception):
        if association.is_established:
            association.release()
        else:
            association.abort()


def echo(caller: Caller) -> None:
    """C-ECHO.

    Raises:
        PacsError: with the reason.
    """
    with associated(caller, Offer([build_context(Verification)])) as association:
        check_status(caller, "C-ECHO", association.send_c_echo())


def accepted(association: Association, sop_class: str) -> bool:
    """Whether the remote takes this service."""
    return any(context.abstract_syntax == sop_class for context in association.accepted_contexts)


def check_status(caller: Caller, service: str, status: Dataset) -> int:
    """The DIMSE status if it means success, pending or a warning.

    Raises:
        PacsError: `pacs-lost` without any status, else `pacs-status` or `pacs-destination`.
    """
    if "Status" not in status:
        raise lost(caller.name, _WHERE)
    code = int(status.Status)
    if code in (0x0000, 0xFF00, 0xFF01) or 0xB000 <= code <= 0xBFFF:
        return code
    raise bad_status(caller.name, service, code)


def _answer_at_once(association: Association) -> None:
    """Command and identifier are two small packets: without this the second waits 40 ms for the first."""
    transport = association.dul.socket
    if transport is not None and transport.socket is not None:
        with suppress(OSError):
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _why(caller: Caller, association: Association) -> PacsError:
    if association.is_rejected:
        return _rejected(caller, association.acceptor.primitive)
    return _probe(caller) or PacsError(
        f"remote {caller.name}",
        "it accepts the connection and none of the services asked for",
        "Check what the archive allows to our AE title",
        code="pacs-unsupported" if association.acceptor.primitive is not None else "pacs-refused",
    )


def _rejected(caller: Caller, answer: Any) -> PacsError:
    reason = getattr(answer, "diagnostic", None)
    if getattr(answer, "result_source", None) == 1 and reason in _AE_TITLE:
        whose = "its own AE title is another" if reason == 7 else "it does not know our AE title"
        return PacsError(
            f"remote {caller.name}",
            f"it refused the association: {whose}",
            "Compare ae_title in [[pacs.remotes]] and pacs.ae_title with the archive's settings",
            code="pacs-ae-title",
        )
    return PacsError(
        f"remote {caller.name}",
        "it refused the association",
        "Look in the archive's log; it may be at its limit of associations or want TLS",
        code="pacs-refused",
    )


def _probe(caller: Caller) -> PacsError | None:
    """Connect once more without DICOM, to tell a closed port from certificates and from a refusal."""
    remote = caller.remote
    try:
        with socket.create_connection((remote.host, remote.port), timeout=CONNECT_S) as plain:
            if uses_tls(remote.tls):
                context = client_tls(caller, remote.tls)
                with context.wrap_socket(plain, server_hostname=remote.host) as secured:
                    secured.settimeout(1.0)
                    with suppress(TimeoutError):
                        secured.recv(1)  # TLS 1.3: a server that does not take our certificate says so now
    except ssl.SSLError:
        return tls_failed(caller.name, _WHERE)
    except TimeoutError:
        return timed_out(caller.name, _WHERE)
    except OSError:
        return unreachable(caller.name, _WHERE)
    return None
