"""A hospital and a release as `server.site_book` keeps them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from common.types import SiteName

INVITED: Final = "invited"
WAITING: Final = "waiting"
MEMBER: Final = "member"
REVOKED: Final = "revoked"


@dataclass(frozen=True)
class SiteRow:
    """A hospital as the consortium knows it; what it asked for is empty unless it waits."""

    name: SiteName
    state: str
    identity: str = ""
    node: str = ""
    request: str = ""
    asked_identity: str = ""
    asked_node: str = ""
    asked_request: str = ""
    seen_at: float = 0.0
    """When it last came through the edge with its certificate; seconds since 1970."""


@dataclass(frozen=True)
class ReleaseRow:
    """A bundle that hospitals may fetch; `body` is empty in a list."""

    id: str
    at: float
    title: str
    body: bytes = b""


def site_row(row: sqlite3.Row) -> SiteRow:
    """A row of the table `sites`; what is not known is empty."""
    values: dict[str, Any] = {name: row[name] or "" for name in SiteRow.__dataclass_fields__}
    return SiteRow(**(values | {"seen_at": row["seen_at"] or 0.0}))
