"""What a hospital remembers of masked rounds, in `state/masking.sqlite`; each change is on disk when it returns.

`rounds`   the state of the newest round of each run; the secrets of an older one are overwritten
`replies`  every answer of that round as bytes, with the digest of what was asked
`masks`    for every update that was ever masked, under which bond; never deleted
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import TypeAdapter, ValidationError

from common.durability import synchronous
from common.errors import StorageError
from common.messages import Kind, SignedKeys, Terms
from common.types import RunId, SiteName

NAME: Final = "masking.sqlite"
_BUSY_S: Final = 30.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS rounds (run TEXT PRIMARY KEY, round INTEGER NOT NULL, held TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS replies (run TEXT NOT NULL, kind TEXT NOT NULL, asked TEXT NOT NULL, reply BLOB NOT NULL,
  PRIMARY KEY (run, kind)) STRICT;
CREATE TABLE IF NOT EXISTS masks (content TEXT PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL,
  bond TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS losses (run TEXT PRIMARY KEY, round INTEGER NOT NULL, loss REAL, before REAL) STRICT;
"""


@dataclass(frozen=True)
class Kept:
    """The two shares this site holds of another's secrets, hexadecimal."""

    mask: str = field(repr=False)
    own: str = field(repr=False)


@dataclass(frozen=True)
class Held:
    """One round as this site knows it. Secrets are hexadecimal, and empty once they are not needed any more."""

    terms: Terms
    context: str
    mask: str = field(default="", repr=False)
    seal: str = field(default="", repr=False)
    own: str = field(default="", repr=False)
    keys: tuple[SignedKeys, ...] = ()
    kept: dict[SiteName, Kept] = field(default_factory=dict, repr=False)
    """By whose secrets they are of; this site's own among them."""
    dealt: tuple[SiteName, ...] = ()
    """Who shared out, sorted; empty until the model came."""
    bond: str = ""
    model: str = ""
    alive: tuple[SiteName, ...] = ()


_ADAPTER: Final[TypeAdapter[Held]] = TypeAdapter(Held)


class Book:
    """The tables within one transaction."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base

    def newest(self, run: RunId) -> int:
        """The newest round of a run that was begun here; 0 for none."""
        return int((self._row("SELECT round FROM rounds WHERE run = ?", run) or (0,))[0])

    def held(self, run: RunId) -> Held | None:
        """The state of the newest round."""
        row = self._row("SELECT held FROM rounds WHERE run = ?", run)
        return None if row is None else _ADAPTER.validate_json(row[0])

    def begin(self, run: RunId, round_: int, held: Held) -> None:
        """A new round; secrets and answers of the one before go."""
        self._base.execute("DELETE FROM replies WHERE run = ?", (run,))
        text = _ADAPTER.dump_json(held).decode()
        self._base.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (run, round_, text))

    def put(self, run: RunId, held: Held) -> None:
        """The newest round's state, changed."""
        text = _ADAPTER.dump_json(held).decode()
        self._base.execute("UPDATE rounds SET held = ? WHERE run = ?", (text, run))

    def reply(self, run: RunId, kind: Kind) -> tuple[str, bytes] | None:
        """What was asked and answered in the newest round."""
        row = self._row("SELECT asked, reply FROM replies WHERE run = ? AND kind = ?", run, kind.value)
        return None if row is None else (str(row[0]), bytes(row[1]))

    def answer(self, run: RunId, kind: Kind, asked: str, reply: bytes) -> None:
        """Keep an answer; a second one to the same kind is an error of ours."""
        self._base.execute("INSERT INTO replies VALUES (?, ?, ?, ?)", (run, kind.value, asked, reply))

    def bond_of(self, content: str) -> str | None:
        """The bond under which an update with this digest was masked; None for one that never was."""
        row = self._row("SELECT bond FROM masks WHERE content = ?", content)
        return None if row is None else str(row[0])

    def masked(self, content: str, run: RunId, round_: int, bond: str) -> None:
        """An update is masked, once and for all."""
        self._base.execute("INSERT OR IGNORE INTO masks VALUES (?, ?, ?, ?)", (content, run, round_, bond))

    def loss_before(self, run: RunId, round_: int, loss: float | None) -> float | None:
        """Keep the incoming model's validation loss; that of the round before is returned. It never leaves."""
        row = self._row("SELECT round, loss, before FROM losses WHERE run = ?", run)
        before = None if row is None else row[2] if row[0] == round_ else row[1]
        self._base.execute("INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?)", (run, round_, loss, before))
        return None if before is None else float(before)

    def _row(self, query: str, *values: object) -> Any:
        return self._base.execute(query, values).fetchone()


class Store:
    """The file of one site."""

    synchronous: ClassVar[str] = "EXTRA"
    """SQLite's word for: after a commit file and folder are on the platter."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self) -> Iterator[Book]:
        """One transaction, on disk when it ends; none of it when it fails.

        Raises:
            StorageError: `secagg-state` for a damaged file, `storage` when it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)) as base:
                base.execute(f"PRAGMA synchronous = {synchronous(self.synchronous)}")
                base.execute("PRAGMA secure_delete = ON")
                base.executescript(_TABLES)
                self._path.chmod(0o600)
                base.execute("BEGIN IMMEDIATE")
                yield Book(base)
                base.execute("COMMIT")
        except ValidationError:
            raise self._damaged() from None
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError):
                raise self._damaged() from None
            raise self._unwritten() from None
        except OSError:
            raise self._unwritten() from None

    def _damaged(self) -> StorageError:
        remedy = "Restore the site's state from backup together with the ledger; never delete this file alone"
        return StorageError(self._path.name, "it is damaged", remedy, code="secagg-state")

    def _unwritten(self) -> StorageError:
        return StorageError(self._path.name, "it cannot be written", "Check free space and rights")
