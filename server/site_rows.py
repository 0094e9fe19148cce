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
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sites (
  name TEXT PRIMARY KEY, state TEXT NOT NULL, identity TEXT UNIQUE, node TEXT, request TEXT,
  asked_identity TEXT, asked_node TEXT, asked_request TEXT, asked_at REAL, admitted_at REAL, seen_at REAL) STRICT;
CREATE TABLE IF NOT EXISTS invitations (
  code TEXT PRIMARY KEY, site TEXT NOT NULL, made_at REAL NOT NULL, ends_at REAL NOT NULL, used_by TEXT) STRICT;
CREATE TABLE IF NOT EXISTS certificates (
  fingerprint TEXT PRIMARY KEY, site TEXT NOT NULL, serial TEXT NOT NULL, begins REAL NOT NULL,
  ends REAL NOT NULL, pem TEXT NOT NULL, revoked_at REAL) STRICT;
CREATE TABLE IF NOT EXISTS rosters (version INTEGER PRIMARY KEY, signed_at REAL NOT NULL, text TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS releases (id TEXT PRIMARY KEY, at REAL NOT NULL, title TEXT NOT NULL, body BLOB NOT NULL) STRICT;
"""


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
