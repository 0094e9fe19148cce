"""The ledger's file: SQLite with full synchronisation, one process at a time, hash-chained rows.

Only `client/privacy/ledger.py` uses it. A row's digest covers the row before it, so that a changed,
removed or reordered row is found when the file is opened. Every write is one transaction that is on
disk, directory entry included, when the call returns.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.privacy.ledger_open import (
    SCHEMA,
    Stamp,
    canonical,
    connect,
    corrupt,
    create,
    locked,
    refuse,
    stamp,
    translated,
)
from common.messages import LedgerHead as Head
from common.types import Digest


@dataclass(frozen=True)
class Write:
    """What one transaction adds: a row, the members of a new cohort, an update's bytes, old ones to drop."""

    body: dict[str, Any]
    cohort: Digest | None = None
    members: tuple[str, ...] = ()
    update: tuple[int, bytes] | None = None
    """Sequence of the charge, and the protected update."""
    forget: tuple[int, ...] = ()
    """Sequences whose stored bytes are dropped; their rows stay."""


@dataclass(frozen=True)
class Chain:
    """The rows of a ledger that was found whole."""

    digests: list[Digest]
    """Of what came before the first row, then of every row."""
    rows: list[tuple[int, str]]
    """Sequence and body; empty where they were believed and not read again."""

    @property
    def head(self) -> Head:
        """Of the last row."""
        return Head(len(self.digests) - 1, self.digests[-1])


def link(previous: Digest, body: str) -> Digest:
    """The digest of a row after the one with digest `previous`."""
    return Digest("sha256:" + hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest())


class LedgerFile:
    """An open, locked, verified ledger file.

    Args:
        path: of the ledger.
        simulated: must be what it was made with.
        believed: a state of the file that this process verified before, and its digests; believed again
            when nobody wrote to the file since.

    Raises:
        LedgerError: `ledger-missing`, `ledger-locked`, `ledger-corrupt`, `ledger-simulated`,
            `ledger-journal`, `ledger-readonly`.
    """

    def __init__(
        self, path: Path, *, simulated: bool, believed: tuple[Stamp, list[Digest]] | None = None
    ) -> None:
        with translated():
            there = path.is_file()
        if not there:
            refuse("missing", "the ledger is not there", "Restore the newest one; never make a fresh one")
        self._path = path
        self._whole = False
        self._lock = locked(path)
        try:
            with translated():
                self.trusted = believed is not None and stamp(path) == believed[0]
                self._db = connect(path, lambda db: _verified(db, simulated=simulated))
                self._whole = True
                if believed is not None and self.trusted:
                    self.chain = Chain(believed[1], [])
                else:
                    self.chain = _verified(self._db, simulated=simulated)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, *, simulated: bool) -> None:
        """Make an empty ledger; see `ledger_open.create`."""
        create(path, simulated=simulated)

    @property
    def head(self) -> Head:
        """Of the last row."""
        return self.chain.head

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Sequence and body of every row."""
        with translated():
            yield from ((sequence, json.loads(body)) for sequence, body in self.chain.rows)

    def text(self) -> list[tuple[int, str, str]]:
        """Sequence, body and digest of every row, as they lie in the file."""
        with translated():
            return list(self._db.execute("SELECT seq, body, digest FROM entries ORDER BY seq"))

    def members(self) -> Iterator[tuple[Digest, str]]:
        """Every (cohort, spend key) on record."""
        with translated():
            yield from ((Digest(c), k) for c, k in self._db.execute("SELECT cohort, spend_key FROM members"))

    def append(self, write: Write) -> Head:
        """Add one row and what goes with it, durably or not at all.

        Raises:
            LedgerError: `ledger-write`; the file must then be opened anew.
        """
        body = canonical(write.body)
        digest = link(self.head.digest, body)
        sequence = self.head.sequence + 1
        with translated(), self._transaction() as db:
            db.execute("INSERT INTO entries (seq, body, digest) VALUES (?, ?, ?)", (sequence, body, digest))
            db.executemany("INSERT INTO members VALUES (?, ?)", ((write.cohort, k) for k in write.members))
            if write.update:
                db.execute("INSERT INTO updates VALUES (?, ?)", write.update)
            db.executemany("DELETE FROM updates WHERE seq = ?", ((s,) for s in write.forget))
        self.chain.digests.append(digest)
        return self.head

    def update(self, sequence: int) -> bytes | None:
        """The stored bytes of the charge with this sequence, or None."""
        with translated():
            row = self._db.execute("SELECT blob FROM updates WHERE seq = ?", (sequence,)).fetchone()
        return None if row is None else bytes(row[0])

    def stored_sequences(self) -> frozenset[int]:
        """The charges whose update is still stored."""
        with translated():
            return frozenset(seq for (seq,) in self._db.execute("SELECT seq FROM updates"))

    def close(self) -> Stamp | None:
        """Close the file, give the lock back, and say in which state it was left; None after a failed write."""
        left: Stamp | None = None
        if self._whole:
            self._whole = False
            self._db.close()
            with translated():
                left = stamp(self._path)
        self._lock.close()
        return left

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            # After a failed write nobody knows what the disk holds: the next opening will see.
            self._whole = False
            self._db.close()
            self._lock.close()
            raise


def _verified(db: sqlite3.Connection, *, simulated: bool) -> Chain:
    if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        corrupt("SQLite finds the file damaged")
    # SQLite reads what is missing of a last page as zeros.
    pages, of_bytes = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    if Path(db.execute("PRAGMA database_list").fetchone()[2]).stat().st_size != pages * of_bytes:
        corrupt("the file's end is missing")
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if meta.get("schema") != SCHEMA:
        corrupt("its schema is not known")
    if meta.get("simulated") != canonical(simulated):
        refuse("simulated", "a simulated ledger and a real one do not mix", "Give this site its own")
    chain = Chain([_genesis(meta)], [])
    for seq, body, digest in db.execute("SELECT seq, body, digest FROM entries ORDER BY seq"):
        chain.digests.append(link(chain.digests[-1], body))
        if seq != chain.head.sequence or digest != chain.digests[-1]:
            corrupt(f"row {seq} does not follow from the row before it")
        chain.rows.append((seq, body))
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    if (last[0] if last else 0) != chain.head.sequence:
        corrupt("rows at its end are missing")
    return chain


def _genesis(meta: dict[str, str]) -> Digest:
    return link(Digest(""), canonical(meta))


def group_members(pairs: Iterable[tuple[Digest, str]]) -> dict[Digest, list[str]]:
    """Members by cohort."""
    cohorts: dict[Digest, list[str]] = {}
    for cohort, key in pairs:
        cohorts.setdefault(cohort, []).append(key)
    return cohorts
