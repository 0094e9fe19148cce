"""SQLite files as the rooms use them: one transaction on a small file of state, and the log ahead of writing (WAL) switched on by several.

SQLite's own time-out does not cover this one change: two processes that open a new file in the same moment each hold a
shared lock and each ask for the exclusive one, and the loser is answered "busy" at once, because waiting could never
end (https://sqlite.org/c3ref/busy_handler.html). Asking again after giving the lock back does end, so that is done.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from common.durability import synchronous
from common.errors import StorageError

BUSY_S: Final = 30.0
"""How long another process's transaction is waited for."""
_PAUSE_S: Final = 0.005


def use_wal(db: sqlite3.Connection, seconds: float) -> None:
    """Switch a file to WAL, or see that it is already so.

    Args:
        db: open, outside any transaction.
        seconds: how long another process may be in the way.

    Raises:
        sqlite3.OperationalError: it was in the way for longer, or the file cannot be read or written.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        else:
            return
        time.sleep(_PAUSE_S)


@contextmanager
def committed(path: Path, tables: str, damaged: str = "storage") -> Iterator[sqlite3.Connection]:
    """One transaction, on disk when it ends; none of it when it fails.

    Args:
        path: of a file of a site's state, made with its folder where it is not there.
        tables: statements that make its tables where they are not there.
        damaged: code of the error for a file that is no database, or a broken one.

    Raises:
        StorageError: `damaged`, or `storage` where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as base:
            base.execute(f"PRAGMA synchronous = {synchronous('EXTRA')}")
            base.executescript(tables)
            base.execute("BEGIN IMMEDIATE")
            yield base
            base.execute("COMMIT")
    except sqlite3.OperationalError:
        raise StorageError(path.name, "it cannot be written", "Check free space and rights") from None
    except sqlite3.DatabaseError:
        raise StorageError(
            path.name, "it is damaged", "Restore the site's state from backup", code=damaged
        ) from None
    except OSError:
        raise StorageError(path.name, "it cannot be written", "Check free space and rights") from None
