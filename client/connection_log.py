"""What was asked of the federation outside of rounds (to be enrolled, the next certificate): a log of its own.

<state>/federation/audit.jsonl

Containers and units give the connection (tunnel, renewal, enrolment) no folder but this one and the keys, so it cannot
write into the site's own log. That one binds this: before the site swears where its log ends, a line `connection.head`
says where this one ends, and `check` holds it to every such line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.membership import FOLDER
from common.audit import EMPTY, AuditLog, Head, read, verify
from common.types import Digest

if TYPE_CHECKING:
    from client.site import Site

BOUND: Final = "connection.head"
"""The event in the site's own log."""


def path_of(site: Site) -> Path:
    """Where it lies."""
    return site.state / FOLDER / "audit.jsonl"


def bind(site: Site, bound: str) -> str:
    """Write down in the site's own log where this one ends, unless that was `bound` before.

    Returns:
        The hash that is bound now; empty while nothing was asked.

    Raises:
        StorageError: either log cannot be read or written.
    """
    head = AuditLog(path_of(site)).head()
    if head == EMPTY:
        return ""
    if head.digest != bound:
        AuditLog(site.audit).append(BOUND, count=head.count, digest=head.digest)
    return str(head.digest)


def check(site: Site) -> int:
    """Hold this log to its chain, and to every line of the site's own that binds it.

    Returns:
        Its lines.

    Raises:
        StorageError: `audit-…` (`common.audit.verify`).
    """
    known = [
        Head(int(entry["fields"]["count"]), Digest(entry["fields"]["digest"]))
        for entry in read(site.audit)
        if entry["event"] == BOUND
    ]
    return verify(path_of(site), *known).count
