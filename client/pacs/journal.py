"""What has been fetched already, so that a pull that was killed goes on where it was.

`<state>/pacs.sqlite` holds keyed codes only: no UID, no accession number, no name. The key is the pseudonym key,
so that after a rotation, which asks for everything to be taken in again, everything is also fetched again.
A line is written after the instance is on the disk of the inbox. The journal itself may lose its last lines in
a power cut: those instances are fetched once more, and the inbox knows them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from client.deid.pseudonyms import Pseudonyms
from client.pacs.query import study_code
from client.site import Site
from common.errors import StorageError
from common.sqlite import use_wal

NAME: Final = "pacs.sqlite"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS instances (code TEXT PRIMARY KEY, series TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_series ON instances (series);
CREATE TABLE IF NOT EXISTS studies (
    remote TEXT NOT NULL, study TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    PRIMARY KEY (remote, study)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watched (remote TEXT PRIMARY KEY, sequence INTEGER NOT NULL, mark TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Position:
    """How far an archive's list of changes has been read."""

    sequence: int = 0
    mark: str = ""
    """Keyed code of the change at that place, by which another list is told from the same."""


class Journal:
    """The record of one site's pulls; any thread may write.

    Raises:
        StorageError: any method, when the file cannot be read or written.
    """

    def __init__(self, path: Path, names: Pseudonyms) -> None:
        self._names = names
        self._lock = threading.Lock()
        with _translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            use_wal(self._db, 30)
            self._db.execute(
                "PRAGMA synchronous=NORMAL"
            )  # a kill loses nothing, a power cut little: see above
            self._db.executescript(_SCHEMA)

    @classmethod
    def of(cls, site: Site) -> Journal:
        """The journal of a site."""
        return cls(site.state / NAME, Pseudonyms.of(site))

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._db.close()

    def code(self, study: str) -> str:
        """The keyed code by which people hear of a study."""
        return study_code(self._names, study)

    def has(self, instance: str) -> bool:
        """Whether this instance was put into the inbox."""
        return bool(self._ask("SELECT 1 FROM instances WHERE code = ?", self._instance(instance)))

    def count(self, series: str) -> int:
        """Instances of a series that were."""
        return int(self._ask("SELECT count(*) FROM instances WHERE series = ?", self._series(series))[0][0])

    def note(self, series: str, instance: str) -> None:
        """Say that an instance is on the disk of the inbox."""
        self._ask(
            "INSERT OR REPLACE INTO instances VALUES (?, ?)", self._instance(instance), self._series(series)
        )

    def forget(self, series: str) -> None:
        """Let a series be fetched again."""
        self._ask("DELETE FROM instances WHERE series = ?", self._series(series))

    def begin(self, remote: str, study: str) -> int:
        """A study is being fetched; returns which attempt it is since it was last whole."""
        found = self._ask(
            "INSERT INTO studies VALUES (?, ?, 'begun', '', 1) ON CONFLICT (remote, study) "
            "DO UPDATE SET state = 'begun', attempts = attempts + 1 RETURNING attempts",
            remote,
            self.code(study),
        )
        return int(found[0][0])

    def end(self, remote: str, study: str, reason: str = "") -> None:
        """A study is whole, or failed for this reason code."""
        self._ask(
            "UPDATE studies SET state = ?, reason = ?, attempts = attempts * ? WHERE remote = ? AND study = ?",
            "failed" if reason else "done",
            reason,
            int(bool(reason)),
            remote,
            self.code(study),
        )

    def failed(self, remote: str) -> Mapping[str, str]:
        """Study codes to reason codes of what has not succeeded yet."""
        return dict(
            self._ask("SELECT study, reason FROM studies WHERE remote = ? AND state = 'failed'", remote)
        )

    def position(self, remote: str) -> Position:
        """How far the remote's changes have been read."""
        found = self._ask("SELECT sequence, mark FROM watched WHERE remote = ?", remote)
        return Position(*found[0]) if found else Position()

    def move(self, remote: str, sequence: int, change: str) -> None:
        """Everything up to this change has been dealt with; `change` is what the archive says of it."""
        self._ask("INSERT OR REPLACE INTO watched VALUES (?, ?, ?)", remote, sequence, self.mark(change))

    def mark(self, change: str) -> str:
        """The keyed code of a change."""
        return self._names.join("pacs-change", change)

    def _instance(self, uid: str) -> str:
        return self._names.join("pacs-instance", uid)

    def _series(self, uid: str) -> str:
        return self._names.join("pacs-series", uid)

    def _ask(self, statement: str, *values: object) -> list[Any]:
        with self._lock, _translated():
            return self._db.execute(statement, values).fetchall()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError):
        raise StorageError(
            NAME,
            "the journal of what was fetched cannot be read or written",
            "Check free space and rights of the state folder; if the file is damaged, move it away: "
            "everything is then asked for again",
        ) from None
