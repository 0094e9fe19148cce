"""SQLite's log ahead of writing (WAL), switched on by several processes at once.

SQLite's own time-out does not cover this one change: two processes that open a new file in the same moment each hold a
shared lock and each ask for the exclusive one, and the loser is answered "busy" at once, because waiting could never
end (https://sqlite.org/c3ref/busy_handler.html). Asking again after giving the lock back does end, so that is done.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final

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
