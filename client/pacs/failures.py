"""What can go wrong with an archive, each by its own code, rule and remedy; never with what the archive said.

| code | meaning |
|---|---|
| pacs-unreachable | nobody listens there, or a name that cannot be resolved |
| pacs-ae-title | the association was refused because of an AE title |
| pacs-refused | the association was refused, or ended while it was asked, for another reason |
| pacs-tls | the certificates do not fit |
| pacs-auth, pacs-forbidden | HTTP 401, 403 |
| pacs-missing | HTTP 404 |
| pacs-server | HTTP 5xx |
| pacs-proxy | the proxy between does not let us through |
| pacs-timeout | it took too long |
| pacs-lost | the connection broke in the middle |
| pacs-status | a DIMSE status that means failure |
| pacs-destination | the archive does not know this site as a destination of C-MOVE |
| pacs-port | our own port is in use |
| pacs-answer | an answer that is not what the standard says |
| pacs-uid | a UID that is none |
| pacs-size | an instance larger than this site takes |
| pacs-incomplete | some instances did not come |
| pacs-unsupported | the archive offers no way to do it |
"""

from __future__ import annotations

import re
from typing import Final

from common.errors import PacsError

# Archives hold UIDs that break the standard's form; what matters is that none can be a wildcard or a path.
_UID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


def unreachable(remote: str, where: str) -> PacsError:
    """Nobody answers at this remote; `where` is DICOM, DICOMweb or REST."""
    return PacsError(
        f"remote {remote}",
        f"nobody answers at its {where} address",
        "Check host and port in [[pacs.remotes]], that the archive runs, and the firewall between",
        code="pacs-unreachable",
    )


def tls_failed(remote: str, where: str) -> PacsError:
    """The certificates of one side do not satisfy the other."""
    return PacsError(
        f"remote {remote}",
        f"its {where} certificate is not signed by a known authority, has expired or names another host, "
        "or it does not accept ours",
        "Name the hospital's CA in `authorities` of this remote, and use the host name that the certificate has",
        code="pacs-tls",
    )


def timed_out(remote: str, where: str) -> PacsError:
    """The remote did not answer in time."""
    return PacsError(
        f"remote {remote}",
        f"its {where} did not answer in time",
        "Ask again when the archive is less busy",
        code="pacs-timeout",
    )


def lost(remote: str, where: str) -> PacsError:
    """The connection ended in the middle of an answer."""
    return PacsError(
        f"remote {remote}",
        f"its {where} ended the connection before the answer was whole",
        "Check that the archive knows our AE title and allows what was asked; then repeat the same command",
        code="pacs-lost",
    )


def bad_answer(remote: str, what: str) -> PacsError:
    """The answer is not what the standard says; `what` is a clause of ours, not the archive's text."""
    return PacsError(
        f"remote {remote}",
        what,
        "Check that the address leads to DICOMweb or DICOM of an archive",
        code="pacs-answer",
    )


def bad_status(remote: str, service: str, status: int) -> PacsError:
    """A DIMSE status that means failure."""
    if service == "C-MOVE" and status == 0xA801:
        return PacsError(
            f"remote {remote}",
            "it does not know this site as a destination",
            "Enter pacs.ae_title with host and port of [pacs.listen] in the archive, or use --via get",
            code="pacs-destination",
        )
    return PacsError(
        f"remote {remote}",
        f"it answered {service} with status 0x{status:04X}",
        "Look in the archive's log for the reason; it must allow this service to our AE title",
        code="pacs-status",
    )


def check_uid(remote: str, uid: str) -> str:
    """The UID, if it is one; a wildcard, a list or a path is not.

    Raises:
        PacsError: `pacs-uid`.
    """
    if not _UID.fullmatch(uid):
        raise PacsError(
            f"remote {remote}",
            "a UID in its answer has characters that no UID has",
            "Correct the study in the archive",
            code="pacs-uid",
        )
    return uid
