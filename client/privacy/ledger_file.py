"""The ledger's file: SQLite with full synchronisation, one process at a time, hash-chained rows.

Only `client/privacy/ledger.py` uses it. A row's digest covers the row before it, so that a changed,
removed or reordered row is found when the file is opened. Every write is one transaction that is on
disk, directory entry included, when the call returns.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from common.errors import LedgerError
from common.types import Digest

SCHEMA: Final = "consilium/ledger/1"
_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE members (cohort TEXT NOT NULL, spend_key TEXT NOT NULL,
  PRIMARY KEY (cohort, spend_key)) STRICT, WITHOUT ROWID;
CREATE TABLE updates (seq INTEGER PRIMARY KEY REFERENCES entries(seq), blob BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Head:
    """The ledger's counter and the digest of its last row: what the server countersigns."""

    sequence: int
    digest: Digest


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


def link(previous: Digest, body: str) -> Digest:
    """The digest of a row after the one with digest `previous`."""
    return Digest("sha256:" + hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest())


def canonical(body: object) -> str:
    """One spelling of a row: sorted keys, no blanks, exact floats."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


class LedgerFile:
    """An open, locked, verified ledger file.

    Raises:
        LedgerError: `ledger-missing`, `ledger-locked`, `ledger-corrupt`, `ledger-simulated`.
    """

    def __init__(self, path: Path, *, simulated: bool) -> None:
        if not path.is_file():
            _refuse("missing", "the ledger is not there", "Restore it from backup; never make a fresh one")
        self._lock = _locked(path)
        try:
            with _translated():
                self._db = _connect(path)
                self.rows, self.head = self._verified(simulated=simulated)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, *, simulated: bool) -> None:
        """Make an empty ledger; the one moment at which a hospital's spend is zero.

        Raises:
            LedgerError: `ledger-exists`, `ledger-locked`, `ledger-write`.
        """
        if path.exists():
            _refuse("exists", "there already is a ledger", "Use it; a ledger is never started afresh")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        draft = path.with_name(path.name + ".new")
        try:
            draft.unlink(missing_ok=True)
            with _translated():
                _initialise(draft, simulated=simulated)
            draft.rename(path)
            _sync_folder(path.parent)
        finally:
            lock.close()

    def members(self) -> Iterator[tuple[Digest, str]]:
        """Every (cohort, spend key) on record."""
        with _translated():
            yield from ((Digest(c), k) for c, k in self._db.execute("SELECT cohort, spend_key FROM members"))

    def append(self, write: Write) -> Head:
        """Add one row and what goes with it, durably or not at all.

        Raises:
            LedgerError: `ledger-write`; the file must then be opened anew.
        """
        body = canonical(write.body)
        digest = link(self.head.digest, body)
        sequence = self.head.sequence + 1
        with _translated(), self._transaction() as db:
            db.execute("INSERT INTO entries (seq, body, digest) VALUES (?, ?, ?)", (sequence, body, digest))
            db.executemany("INSERT INTO members VALUES (?, ?)", ((write.cohort, k) for k in write.members))
            if write.update:
                db.execute("INSERT INTO updates VALUES (?, ?)", write.update)
            db.executemany("DELETE FROM updates WHERE seq = ?", ((s,) for s in write.forget))
        self.head = Head(sequence, digest)
        return self.head

    def update(self, sequence: int) -> bytes | None:
        """The stored bytes of the charge with this sequence, or None."""
        with _translated():
            row = self._db.execute("SELECT blob FROM updates WHERE seq = ?", (sequence,)).fetchone()
        return None if row is None else bytes(row[0])

    def stored_sequences(self) -> frozenset[int]:
        """The charges whose update is still stored."""
        with _translated():
            return frozenset(seq for (seq,) in self._db.execute("SELECT seq FROM updates"))

    def close(self) -> None:
        """Close the file and give the lock back."""
        if hasattr(self, "_db"):
            self._db.close()
        self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            # After a failed write nobody knows what the disk holds: the next opening will see.
            self.close()
            raise

    def _verified(self, *, simulated: bool) -> tuple[list[tuple[int, dict[str, Any]]], Head]:
        if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            _corrupt("SQLite finds the file damaged")
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if meta.get("schema") != SCHEMA:
            _corrupt("its schema is not known")
        if meta.get("simulated") != canonical(simulated):
            _refuse("simulated", "a simulated ledger and a real one do not mix", "Give this site its own")
        head, rows = Head(0, _genesis(meta)), []
        for seq, body, digest in self._db.execute("SELECT seq, body, digest FROM entries ORDER BY seq"):
            head = Head(head.sequence + 1, link(head.digest, body))
            if seq != head.sequence or digest != head.digest:
                _corrupt(f"row {seq} does not follow from the row before it")
            rows.append((seq, json.loads(body)))
        last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
        if (last[0] if last else 0) != head.sequence:
            _corrupt("rows at its end are missing")
        return rows, head


def _genesis(meta: dict[str, str]) -> Digest:
    return link(Digest(""), canonical(meta))


def _initialise(path: Path, *, simulated: bool) -> None:
    meta = {"schema": SCHEMA, "simulated": canonical(simulated), "identity": secrets.token_hex(16)}
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("BEGIN EXCLUSIVE")
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.execute("COMMIT")
    finally:
        db.close()


def _connect(path: Path) -> sqlite3.Connection:
    # The caller holds a lock of its own, so the connection may serve any of the process's threads.
    uri = path.resolve().as_uri() + "?mode=rw"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = DELETE")
    # EXTRA is FULL that also syncs the folder, so that a commit cannot be undone by a power failure.
    db.execute("PRAGMA synchronous = EXTRA")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _locked(path: Path) -> IO[bytes]:
    file = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        _refuse("locked", "another process has the ledger", "Stop the other one; there is one writer")
    return file


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.IntegrityError, sqlite3.ProgrammingError, OSError):
        _refuse(
            "write", "the ledger could not be read or written", "Free disk space, check rights, start again"
        )
    except (sqlite3.DatabaseError, json.JSONDecodeError, KeyError, ValueError):
        _corrupt("it cannot be read as a ledger")


def _corrupt(rule: str) -> NoReturn:
    _refuse("corrupt", rule, "Do not train; restore the ledger from backup and tell the consortium")


def _refuse(word: str, rule: str, remedy: str) -> NoReturn:
    raise LedgerError("ledger.sqlite", rule, remedy, code=f"ledger-{word}") from None


def group_members(pairs: Iterable[tuple[Digest, str]]) -> dict[Digest, list[str]]:
    """Members by cohort."""
    cohorts: dict[Digest, list[str]] = {}
    for cohort, key in pairs:
        cohorts.setdefault(cohort, []).append(key)
    return cohorts
