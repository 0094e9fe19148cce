"""What the index remembers of a patient's use: the part of each split, and the runs that trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from client.index_db import Database
from client.index_rows import CHOSEN, IMAGES_QUERY, KEEP_PART


class Uses(Database):
    """The tables of parts and runs; written through `client.index.Index` only."""

    def parts(self, split: str) -> dict[str, str]:
        """Patient to part, of everybody who was ever given one under this split (`client.splits.split_key`)."""
        return dict(self._all("SELECT patient, part FROM parts WHERE split = ?", (split,)))

    def drawn(self) -> dict[str, dict[str, int]]:
        """Every split that was ever drawn: part to number of patients who are still here."""
        query = "SELECT split, part, COUNT(*) FROM parts GROUP BY split, part ORDER BY split, part"
        found: dict[str, dict[str, int]] = {}
        for split, part, count in self._all(query):
            found.setdefault(split, {})[part] = count
        return found

    def keep_parts(self, split: str, parts: Mapping[str, str]) -> None:
        """Write down parts, over those that were there; a withdrawn or unknown patient gets none.

        Whoever draws reads `parts` and writes here inside one `transaction()`, so that of two processes
        that draw at once the second finds what the first drew.

        Raises:
            StorageError: a part that is none.
        """
        with self.transaction():
            for patient, part in parts.items():
                self._run(KEEP_PART, (split, part, patient))

    def record_run(self, run: str, pseudonyms: Iterable[str]) -> None:
        """Note that a run trains on these patients; before it does, and again for each round."""
        with self.transaction():
            self._run("INSERT OR IGNORE INTO runs VALUES (?, ?)", (run, now()))
            self._run_many(
                "INSERT OR IGNORE INTO run_patients VALUES (?, ?)", [(run, name) for name in pseudonyms]
            )

    def runs_of(self, pseudonym: str) -> list[str]:
        """The runs that used this patient, oldest first."""
        query = "SELECT run FROM run_patients JOIN runs USING (run) WHERE patient = ? ORDER BY at, run"
        return [record[0] for record in self._all(query, (pseudonym,))]

    def state_of_images(self) -> str:
        """Digest of every row that `images` lists: another as soon as any image, label, split or withdrawal is.

        What a run notes of itself does not change it.
        """
        records = self._all(IMAGES_QUERY + CHOSEN, (None, None))
        return hashlib.sha256(repr(records).encode()).hexdigest()

    def trained_on(self) -> set[str]:
        """Every patient whom a recorded run used to train or to validate."""
        return {record[0] for record in self._all("SELECT DISTINCT patient FROM run_patients")}


def now() -> str:
    """The present second as the index writes it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
