"""What outlives a change of pseudonyms: who withdrew, which runs used whom, and each patient's part of a split.

All of it goes by the patient's name in the ledger, which no rotation touches. A patient who comes again, under
another pseudonym, is given back what was theirs the moment the index learns of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from client.index_db import Database
from common.errors import DataError

_FORMER: Final = "former-"
"""Begins the stand-in for the pseudonym of a patient who withdrew before a rotation."""


@dataclass(frozen=True)
class Memory:
    """An index's memory of its patients by ledger name; no pseudonym is in it."""

    withdrawn: tuple[tuple[str, str], ...]
    """(ledger name, when)."""
    runs: tuple[tuple[str, str], ...]
    """(run, when)."""
    used: tuple[tuple[str, str], ...]
    """(run, ledger name)."""
    parts: tuple[tuple[str, str, str], ...]
    """(split, ledger name, part)."""


class Carry(Database):
    """The tables of what was carried over; written through `client.index.Index` only."""

    def memory(self) -> Memory:
        """All that must outlive the pseudonyms of this index.

        Raises:
            DataError: a patient withdrew who is known by pseudonym only: under another key nobody could tell.
        """
        nameless = self._all("SELECT 1 FROM patients WHERE withdrawn_at IS NOT NULL AND spend_key = ''")
        if nameless:
            raise DataError(
                "the key",
                f"{len(nameless)} withdrawn patients are known by pseudonym only and would not be known again",
                "Withdraw each once more by number: consilium-site withdraw --patient",
                code="rotate-nameless",
            )
        withdrawn = "SELECT spend_key, MIN(withdrawn_at) FROM patients WHERE withdrawn_at IS NOT NULL GROUP BY spend_key"
        used = (
            "SELECT run, p.spend_key FROM run_patients JOIN patients p ON p.pseudonym = patient "
            "WHERE p.spend_key <> '' UNION SELECT run, spend_key FROM former_runs"
        )
        parts = (
            "SELECT split, p.spend_key, part FROM parts JOIN patients p ON p.pseudonym = patient "
            "WHERE p.spend_key <> '' UNION SELECT split, spend_key, part FROM former_parts"
        )
        return Memory(
            withdrawn=tuple(self._all(withdrawn)),
            runs=tuple(self._all("SELECT run, at FROM runs ORDER BY at, run")),
            used=tuple(self._all(used)),
            parts=tuple(self._all(parts)),
        )

    def remember(self, memory: Memory) -> None:
        """Take over what another index remembered; of an index that is empty."""
        with self.transaction():
            for key, at in memory.withdrawn:
                self._run("INSERT INTO patients VALUES (?, ?, ?)", (_FORMER + key, key, at))
            for row in memory.runs:
                self._run("INSERT INTO runs VALUES (?, ?)", row)
            for row in memory.used:
                self._run("INSERT INTO former_runs VALUES (?, ?)", row)
            for part in memory.parts:
                self._run("INSERT OR IGNORE INTO former_parts VALUES (?, ?, ?)", part)

    def adopt(self, pseudonym: str, spend_key: str) -> None:
        """Give a patient whom the index learns of what is remembered under their ledger name."""
        query = "SELECT 1 FROM former_runs WHERE spend_key = ?1 UNION ALL SELECT 1 FROM former_parts WHERE spend_key = ?1"
        if not spend_key or self._one(query + " LIMIT 1", (spend_key,)) is None:
            return
        both = (pseudonym, spend_key)
        self._run(
            "INSERT OR IGNORE INTO run_patients SELECT run, ? FROM former_runs WHERE spend_key = ?", both
        )
        self._run(
            "INSERT OR IGNORE INTO parts (split, patient, part) SELECT split, ?, part FROM former_parts "
            "WHERE spend_key = ?",
            both,
        )
        for table in ("former_runs", "former_parts"):
            self._run(f"DELETE FROM {table} WHERE spend_key = ?", (spend_key,))  # noqa: S608 (two fixed names)

    def awaited(self) -> int:
        """How many patients whom runs or splits knew before a rotation have not come again."""
        query = (
            "SELECT COUNT(*) FROM (SELECT spend_key FROM former_runs UNION SELECT spend_key FROM former_parts) "
            "WHERE spend_key NOT IN (SELECT spend_key FROM patients WHERE withdrawn_at IS NOT NULL)"
        )
        record = self._one(query)
        return int(record[0]) if record else 0
