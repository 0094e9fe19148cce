"""Making, locking and connecting to the ledger's file, and saying by name what stands in the way.

Before SQLite may touch the file: the folder's lock is ours, no write-ahead log lies beside it (we never
make one, so it is another file's), and a journal that lies beside it was tried on a copy first. SQLite
rolls back whatever journal it finds; one of another ledger would destroy this one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NoReturn

from common.durability import journal_mode, push_folder, synchronous
from common.errors import LedgerError
from common.locks import taken

SCHEMA: Final = "consilium/ledger/1"
_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE members (cohort TEXT NOT NULL, spend_key TEXT NOT NULL,
  PRIMARY KEY (cohort, spend_key)) STRICT, WITHOUT ROWID;
CREATE TABLE updates (seq INTEGER PRIMARY KEY REFERENCES entries(seq), blob BLOB NOT NULL) STRICT;
"""
_COUNTER: Final = slice(24, 28)
"""Where SQLite counts a file's transactions (its file format, 1.3.7)."""

Stamp = tuple[int, int, int, bytes]
"""Inode, size, time of change and SQLite's own counter: the same while nobody wrote to the file."""


def canonical(body: object) -> str:
    """One spelling of a row: sorted keys, no blanks, exact floats."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def create(path: Path, *, simulated: bool) -> None:
    """Make an empty ledger; the one moment at which a hospital's spend is zero.

    Raises:
        LedgerError: `ledger-exists`, `ledger-locked`, `ledger-write`.
    """
    if path.exists():
        refuse("exists", "there already is a ledger", "Use it; a ledger is never started afresh")
    with translated():
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(path)
    draft = path.with_name(path.name + ".new")
    try:
        with translated():
            # A crash may have left a draft, and a journal that would be rolled back into the new one.
            for left in (draft, _beside(draft, "-journal")):
                left.unlink(missing_ok=True)
            _initialise(draft, simulated=simulated)
            draft.rename(path)
            push_folder(path.parent)
    finally:
        lock.close()


def connect(path: Path, verify: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    """A connection for writing to the ledger at `path`, whose lock the caller holds.

    Args:
        path: of the ledger.
        verify: looks whether a ledger is whole; asked about a copy before a journal is rolled back.

    Raises:
        LedgerError: `ledger-journal` for a log or journal that is not this ledger's, `ledger-readonly`.
    """
    for kind in ("-wal", "-shm"):
        if _beside(path, kind).exists():
            _foreign()
    if _beside(path, "-journal").exists():
        _rehearse(path, verify)
    # SQLite would open it for reading, begin a transaction and fail only at the first row.
    if not os.access(path, os.W_OK):
        refuse("readonly", "the ledger can be read but not written", "Give the service's user its rights")
    return _connect(path)


def stamp(path: Path) -> Stamp | None:
    """What tells one state of the file from another; None while a journal waits to be rolled back."""
    if _beside(path, "-journal").exists():
        return None
    with path.open("rb") as file:
        counter = file.read(_COUNTER.stop)[_COUNTER]
        found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns, counter


def locked(path: Path) -> IO[bytes]:
    """The lock that keeps other processes out, held until it is closed.

    Raises:
        LedgerError: `ledger-locked`, or `ledger-readonly` when the folder cannot be written.
    """
    try:
        return taken(path.with_name(path.name + ".lock"))
    except BlockingIOError:
        refuse("locked", "another process has the ledger", "Stop the other one; there is one writer")
    except OSError:
        refuse("readonly", "its folder cannot be written", "Give the service's user its rights")


@contextmanager
def translated() -> Iterator[None]:
    """Foreign errors within become LedgerError `ledger-write` or `ledger-corrupt`."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.IntegrityError, sqlite3.ProgrammingError, OSError):
        refuse(
            "write", "the ledger could not be read or written", "Free disk space, check rights, start again"
        )
    except (sqlite3.DatabaseError, json.JSONDecodeError, KeyError, ValueError, TypeError):
        corrupt("it cannot be read as a ledger")


def corrupt(rule: str) -> NoReturn:
    """Refuse a ledger that is not whole.

    Raises:
        LedgerError: `ledger-corrupt`.
    """
    refuse("corrupt", rule, "Do not train; restore the newest ledger and tell the consortium")


def refuse(word: str, rule: str, remedy: str) -> NoReturn:
    """Refuse by name.

    Raises:
        LedgerError: with the code `ledger-<word>`.
    """
    raise LedgerError("ledger.sqlite", rule, remedy, code=f"ledger-{word}") from None


def _initialise(path: Path, *, simulated: bool) -> None:
    meta = {"schema": SCHEMA, "simulated": canonical(simulated), "identity": secrets.token_hex(16)}
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute(f"PRAGMA synchronous = {synchronous('EXTRA')}")
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
    db.execute(f"PRAGMA journal_mode = {journal_mode('DELETE')}")
    # EXTRA is FULL that also syncs the folder, so that a commit cannot be undone by a power failure.
    db.execute(f"PRAGMA synchronous = {synchronous('EXTRA')}")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _rehearse(path: Path, verify: Callable[[sqlite3.Connection], object]) -> None:
    """Let SQLite roll the journal back on a copy, and look at what comes of it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".ledger-") as folder:
        copy = Path(folder) / path.name
        for kind in ("", "-journal"):
            shutil.copyfile(_beside(path, kind), _beside(copy, kind))
        try:
            db = _connect(copy)
            try:
                verify(db)
            finally:
                db.close()
        except (LedgerError, sqlite3.DatabaseError, ValueError, KeyError, TypeError):
            _foreign()


def _foreign() -> NoReturn:
    refuse(
        "journal",
        "a journal lies beside it with which it is not whole",
        "Do not open it with other tools; if the journal was copied here, put it away and start again",
    )


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(path.name + kind)
