"""From a pseudonym back to the original: an encrypted table, readable with the pseudonym key alone.

A worker seals each entry where it reads the file, so that no other process holds a patient's number. An entry
is AES-256-GCM under a key that HKDF derives from the pseudonym key, with a nonce of its own; its pseudonym is
bound into it, so that no entry can stand in another's place. The table lies in the site's state, never in
data. Every look-up, also one that finds nothing, is in the audit log with who asked before its answer is known to anybody.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from pydicom.dataset import Dataset

from client.deid.originals import Original, cipher_of, opened, sealed
from client.deid.pseudonyms import Pseudonyms
from client.deid.work import identity
from client.files import FULL
from client.site import Site
from client.site_keys import KEY_BYTES
from common.audit import AuditLog, this_user
from common.errors import FileRefused, InputError, StorageError
from common.sqlite import use_wal

REASONS: Final = ("unspecified", "care", "consent", "labels", "quality", "audit", "legal")
"""Why somebody may ask who a pseudonym is, as it stands in the audit log; a fixed word, never free text."""
_FORM: Final = re.compile(r"P[0-9a-f]{32}|A[0-9a-f]{15}|2\.25\.[0-9]{1,39}")
_TIMEOUT_S: Final = 30.0
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS originals (pseudonym TEXT NOT NULL, spend_key TEXT NOT NULL, "
    "sealed TEXT NOT NULL, PRIMARY KEY (pseudonym, spend_key)) STRICT, WITHOUT ROWID"
)
_PRAGMAS: Final = ("synchronous = FULL", "secure_delete = ON")


class Entry(NamedTuple):
    """The sealed originals of one file and the ledger name of the patient whose they are."""

    spend_key: str
    sealed: Mapping[str, str]


def seal(names: Pseudonyms, source: Dataset) -> dict[str, str]:
    """Pseudonym to sealed original of the patient, the accession number and the study of a source."""
    found: dict[str, Original] = {}
    try:
        who = identity(source)
    except FileRefused:
        return {}  # nobody to erase it for when they withdraw, and nothing of it is taken in
    found[names.patient(who)] = Original("patient", who.patient_id, who.issuer)
    number = str(source.get("AccessionNumber") or "").strip(" \0")
    if number:
        found[names.accession(number)] = Original("accession", number)
    study = str(source.get("StudyInstanceUID") or "").strip(" \0")
    if study:
        found[names.uid(study)] = Original("study", study)
    cipher = cipher_of(names.key)
    return {pseudonym: sealed(cipher, pseudonym, original) for pseudonym, original in found.items()}


class LookupTable:
    """The table of one site.

    Args:
        site: whose.
        key: of the pseudonyms in it; the site's own when None.
        path: of the file, made when something is first added; the site's own when None.

    Raises:
        StorageError: any method, when the file cannot be read or written.
    """

    def __init__(self, site: Site, *, key: bytes | None = None, path: Path | None = None) -> None:
        self._key = key or site.pseudonym_key
        self.path = path or site.state / "lookup.sqlite"

    def add(self, entries: list[Entry]) -> None:
        """Keep these originals, on the disk when it returns; what is there already stays as it is."""
        rows = [(p, e.spend_key, text) for e in entries if e.spend_key for p, text in e.sealed.items()]
        if not rows:
            return
        with self._open(make=True) as database, database:
            database.executemany("INSERT OR IGNORE INTO originals VALUES (?, ?, ?)", rows)

    def find(self, pseudonym: str) -> Original | None:
        """The original of a pseudonym, or None.

        Raises:
            StorageError: `lookup-unreadable`, when the entry was not sealed with this site's key.
        """
        if not self.path.exists():
            return None
        with self._open() as database:
            query = "SELECT sealed FROM originals WHERE pseudonym = ? LIMIT 1"
            row = database.execute(query, (pseudonym,)).fetchone()
        return None if row is None else opened(cipher_of(self._key), pseudonym, row[0])

    def spend_key(self, pseudonym: str) -> str:
        """The ledger name of the patient whose pseudonym this is, or empty."""
        if not self.path.exists():
            return ""
        with self._open() as database:
            query = "SELECT spend_key FROM originals WHERE pseudonym = ? LIMIT 1"
            row = database.execute(query, (pseudonym,)).fetchone()
        return "" if row is None else str(row[0])

    def erase(self, pseudonym: str, spend_key: str = "") -> int:
        """Overwrite every entry of a patient, known by pseudonym or ledger name; how many there were."""
        if not self.path.exists():
            return 0
        with self._open() as database:
            with database:
                mine = "(SELECT spend_key FROM originals WHERE pseudonym = ? UNION SELECT ?)"
                gone = database.execute(
                    f"DELETE FROM originals WHERE spend_key IN {mine}",  # noqa: S608 (no value in the text)
                    (pseudonym, spend_key),
                ).rowcount
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log would keep what the file forgot
        return int(gone)

    def settled(self) -> bool:
        """Whether there is a table, and all of it stands in its one file so that it can be moved.

        Raises:
            StorageError: another process is writing it.
        """
        if not self.path.exists():
            return False
        with self._open() as database:
            busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StorageError(
                self.path.name, "another process writes it", "Repeat the command", code="storage-busy"
            )
        return True

    @property
    def count(self) -> int:
        """How many originals it holds."""
        if not self.path.exists():
            return 0
        with self._open() as database:
            return int(database.execute("SELECT COUNT(*) FROM originals").fetchone()[0])

    @contextmanager
    def _open(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if make:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            with closing(sqlite3.connect(self.path, timeout=_TIMEOUT_S)) as database:
                use_wal(database, _TIMEOUT_S)
                for pragma in _PRAGMAS:
                    database.execute(f"PRAGMA {pragma}")
                database.execute(_TABLE)
                yield database
        except (sqlite3.Error, OSError) as error:
            full = (
                getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(error, "errno", 0) in FULL
            )
            raise StorageError(
                self.path.name,
                "the disk is full" if full else "the look-up table cannot be read or written",
                "Free space and repeat"
                if full
                else "Check its rights; if it is damaged, restore it from backup",
                code="storage-full" if full else "storage",
            ) from None


def look_up(site: Site, pseudonym: str, reason: str) -> Original:
    """Say whose pseudonym this is; the audit log says first that it was asked.

    Args:
        site: where.
        pseudonym: of a patient (`P…`), an accession number (`A…`) or a study (`2.25.…`).
        reason: one of `REASONS`.

    Raises:
        InputError: an unknown reason, what is no pseudonym, or one that stands for nobody here.
        StorageError: the table or the audit log cannot be read or written, or the key is another one.
    """
    if reason not in REASONS:
        raise InputError("the reason", f"it is one of {', '.join(REASONS)}", "Give one of them")
    asked = pseudonym.strip()
    if not _FORM.fullmatch(asked):
        _record(site, "malformed", reason, "malformed")  # what was typed may be a name
        raise InputError(
            "the pseudonym",
            "it is P and 32 characters of 0-9 and a-f, A and 15 of them, or a UID that begins with 2.25",
            "Copy it whole from the image, the index or the report",
        )
    try:
        found = _anywhere(site, asked)
    except StorageError as error:
        _record(site, asked, reason, error.code)
        raise
    _record(site, asked, reason, "unknown" if found is None else "found")
    if found is None:
        raise InputError(
            "the pseudonym",
            "nobody here has it: it is of another site or an older key, or its patient has withdrawn",
            "Check it, and that you ask the right site",
        )
    return found


def retired_key(site: Site) -> Path:
    """Where the key before the last rotation lies until it is destroyed."""
    return site.secrets / "pseudonym.retired.key"


def retired_path(site: Site) -> Path:
    """Where the table of the pseudonyms before the last rotation lies."""
    return site.state / "lookup.retired.sqlite"


def retired_table(site: Site) -> LookupTable | None:
    """The table of the pseudonyms before the last rotation, while their key is kept."""
    try:
        key = retired_key(site).read_bytes()
    except OSError:
        return None
    if len(key) != KEY_BYTES:
        return None
    return LookupTable(site, key=key, path=retired_path(site))


def forget_originals(site: Site, pseudonym: str, spend_key: str = "") -> int:
    """Erase a patient's entries from the table, and from the one before the last rotation; how many there were.

    Raises:
        StorageError: a table cannot be written.
    """
    keys = {spend_key, LookupTable(site).spend_key(pseudonym)} - {""}
    tables = [LookupTable(site), *filter(None, [retired_table(site)])]
    return sum(table.erase(pseudonym, key) for table in tables for key in keys or {""})


def _anywhere(site: Site, pseudonym: str) -> Original | None:
    found = LookupTable(site).find(pseudonym)
    before = retired_table(site)
    return before.find(pseudonym) if found is None and before is not None else found


def _record(site: Site, pseudonym: str, reason: str, status: str) -> None:
    AuditLog(site.audit).append(
        "deid.lookup", digest=pseudonym.lower(), code=reason, status=status, user=this_user()
    )
