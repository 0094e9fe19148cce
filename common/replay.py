"""What was opened before: a memory of nonces on disk that survives restarts and stays small.

1. A nonce is on disk before the message it came with is looked at; a second one is refused (`envelope-replay`).
2. It is kept as long as its message could be opened, clock skew included, and forgotten then.
3. Whatever is forgotten raises a floor: a message that could be opened no longer than one that was forgotten is refused,
   so a clock that is set back, or a memory that overflows, never makes an old message new.
4. There are at most `LARGEST` nonces. Only whoever holds the sender's key can add one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from common.durability import synchronous
from common.envelope import LONGEST_S, SKEW_MS, Envelope, refusal
from common.errors import StorageError

LARGEST: Final = 100_000
"""About 10 MB; a run of a thousand rounds with twenty questions each."""
_BUSY_S: Final = 10.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS seen (nonce TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS seen_by_time ON seen (until);
CREATE TABLE IF NOT EXISTS floor (one INTEGER PRIMARY KEY CHECK (one = 1), until INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO floor VALUES (1, -1);
"""


class Seen:
    """The nonces seen at `path`, a SQLite file made with the first one.

    Args:
        path: in a folder that the courier cannot write.
        largest: how many nonces are kept at most.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self._path = path
        self._largest = largest

    def admit(self, envelope: Envelope, now_ms: int) -> None:
        """Remember this message, durably; an envelope that held, and no other, is brought here.

        Raises:
            FederationError: `envelope-replay` for one that was seen before, or may have been.
            StorageError: the memory cannot be written or read; then nothing may be opened.
        """
        until = envelope.time_ms + min(max(envelope.lifetime_s, 0), LONGEST_S) * 1000 + 2 * SKEW_MS
        with self._open() as base:
            (floor,) = base.execute("SELECT until FROM floor").fetchone()
            known = base.execute("SELECT 1 FROM seen WHERE nonce = ?", (envelope.nonce,)).fetchone()
            if known is not None or until <= floor:
                raise refusal("envelope-replay", "it was opened before")
            base.execute("INSERT INTO seen VALUES (?, ?)", (envelope.nonce, until))
            self._forget(base, now_ms)

    def _forget(self, base: sqlite3.Connection, now_ms: int) -> None:
        """Drop what nobody can open any more, and what comes next above the limit; the floor follows."""
        (count,) = base.execute("SELECT COUNT(*) FROM seen WHERE until >= ?", (now_ms,)).fetchone()
        over = max(0, count - self._largest)
        kept = "SELECT until FROM seen WHERE until >= ? ORDER BY until LIMIT 1 OFFSET ?"
        first = base.execute(kept, (now_ms, over)).fetchone()
        below = now_ms if first is None else first[0]
        query = "SELECT MAX(until) FROM seen WHERE until < ?"
        (newest,) = base.execute(query, (below,)).fetchone()
        if newest is not None:
            base.execute("DELETE FROM seen WHERE until < ?", (below,))
            base.execute("UPDATE floor SET until = max(until, ?)", (newest,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when it ends; none of it when it fails."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)) as base:
                base.execute(f"PRAGMA synchronous = {synchronous('FULL')}")
                base.executescript(_TABLES)
                base.execute("BEGIN IMMEDIATE")
                yield base
                base.execute("COMMIT")
        except (sqlite3.Error, OSError):
            raise StorageError(
                self._path.name,
                "the memory of messages cannot be used",
                "Check free space and rights; never replace it by an empty one",
            ) from None
