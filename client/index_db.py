"""The SQLite file under the index: opening, nested transactions, and every foreign error by our names."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from client.index_schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, TABLES
from common.durability import synchronous
from common.errors import StorageError
from common.sqlite import use_wal

LOCK_TIMEOUT_S: Final = 30.0
FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_INSIDE: Final = nullcontext()
"""A transaction within another."""
_PRAGMAS: Final = (
    "foreign_keys = ON",
    "secure_delete = ON",  # a deleted row is overwritten, not only unlinked
)


class Database:
    """One SQLite file of our schema, opened for reading and writing; a context manager.

    Args:
        path: made with its folder when it is not there.

    Raises:
        StorageError: the file cannot be opened, is damaged, or was written by another release.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything committed stays."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Join all changes made inside into one that happens whole or not at all; may be nested."""
        return _INSIDE if self._depth else self._outermost()

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            with self._translated():
                self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            self._depth = 0

    def check_integrity(self) -> None:
        """Read the whole file and compare it with itself.

        Raises:
            StorageError: `storage-corrupt` when a page or a reference is damaged.
        """
        if self._all("PRAGMA integrity_check") != [("ok",)] or self._all("PRAGMA foreign_key_check"):
            raise _corrupt(self._path.name)

    def _run(self, statement: str, values: Sequence[object] = ()) -> int:
        return self._execute(statement, values).rowcount

    def _run_many(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        with self._translated():
            self._db.executemany(statement, values)

    def _all(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._db.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        try:
            record: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        except (sqlite3.Error, OSError) as error:
            raise _translate(error, self._path.name) from None
        return record

    def _execute(self, statement: str, values: Sequence[object]) -> sqlite3.Cursor:
        """As `_translated` would have it; asked a dozen times for every image, so without a context manager."""
        try:
            return self._db.execute(statement, values)
        except (sqlite3.Error, OSError) as error:
            raise _translate(error, self._path.name) from None

    def _forget(self) -> None:
        """Move the log into the file and empty it, so that deleted rows do not linger there."""
        self._run("PRAGMA wal_checkpoint(TRUNCATE)")

    def _prepare(self) -> None:
        use_wal(self._db, LOCK_TIMEOUT_S)
        for pragma in (f"synchronous = {synchronous('FULL')}", *_PRAGMAS):
            self._db.execute(f"PRAGMA {pragma}")
        if self._version() == SCHEMA_VERSION:
            return
        with self.transaction():  # another process may have made the tables meanwhile: look again inside
            version = self._version()
            if not version and not self._one("SELECT 1 FROM sqlite_master LIMIT 1"):
                self._script(TABLES)
                self._run(f"PRAGMA application_id = {APPLICATION_ID}")
                version = SCHEMA_VERSION
            while version in MIGRATIONS and self._number("application_id") == APPLICATION_ID:
                self._script(MIGRATIONS[version])
                version += 1
            if version != SCHEMA_VERSION:
                raise StorageError(
                    self._path.name,
                    f"its schema version is {version}, this release reads {SCHEMA_VERSION}",
                    "Use the release that wrote it, or ingest into a new site",
                    code="storage-version",
                )
            self._run(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _script(self, statements: str) -> None:
        for statement in statements.split(";\n"):
            self._run(statement)

    def _version(self) -> int:
        return self._number("user_version")

    def _number(self, pragma: str) -> int:
        return self._number_of(f"PRAGMA {pragma}")

    def _number_of(self, query: str) -> int:
        record = self._one(query)
        return int(record[0]) if record else 0

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise _translate(error, self._path.name) from None


def _corrupt(name: str) -> StorageError:
    return StorageError(
        name,
        "the file is damaged or is not an index",
        "Restore it from the backup, or move it away and ingest again",
        code="storage-corrupt",
    )


def _translate(error: sqlite3.Error | OSError, name: str) -> StorageError:
    kind = getattr(error, "sqlite_errorname", "") or ""
    if kind.startswith("SQLITE_FULL") or getattr(error, "errno", None) in FULL_ERRNOS:
        return StorageError(
            name, "the disk is full", "Free space and repeat; nothing was changed", code="storage-full"
        )
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError(
            name,
            f"another process has held it for {LOCK_TIMEOUT_S:g} seconds",
            "Wait for the other command to end, then repeat",
            code="storage-locked",
        )
    if kind.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _corrupt(name)
    if kind.startswith("SQLITE_IOERR"):
        return StorageError(
            name,
            "the disk refuses to read or write it (full, over quota, or failing)",
            "Check space, quota and the disk, then repeat; nothing was changed",
            code="storage-io",
        )
    return StorageError(
        name, "it cannot be read or written", "Check that the folder exists and its rights", code="storage"
    )
