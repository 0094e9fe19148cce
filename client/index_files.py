"""What the index remembers of incoming files and of ingestions; nothing of it says whose a file was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from client.index_db import Database
from client.index_rows import FileOutcome
from client.index_uses import now

_OUTCOMES = "SELECT code, quarantine_id, sop_uid, modality, scanner, quality FROM files "


class Files(Database):
    """The tables of files and ingestions; written through `client.index.Index` only."""

    def record_file(self, key: str, outcome: FileOutcome) -> None:
        """Remember what became of an incoming file, by its keyed digest."""
        with self.transaction():
            self._run(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(key, outcome.code, outcome.quarantine_id, outcome.sop_uid),
                    *(outcome.modality, outcome.scanner, json.dumps(dict(outcome.quality))),
                ),
            )

    def file_outcome(self, key: str) -> FileOutcome | None:
        """What became of this file before, or None when it is new."""
        record = self._one(_OUTCOMES + "WHERE key = ?", (key,))
        return None if record is None else _outcome(record)

    def judged(self) -> list[FileOutcome]:
        """Every image that was refused after its figures were measured, by code; once, whatever files it came in."""
        once = "GROUP BY code, CASE quarantine_id WHEN '' THEN key ELSE quarantine_id END"
        records = self._all(f"{_OUTCOMES} WHERE quality <> '{{}}' {once} ORDER BY code, key")
        return [_outcome(record) for record in records]

    def ended_as(self, quarantine_id: str, code: str) -> bool:
        """Whether the file of this quarantine identifier is remembered with this code."""
        query = "SELECT 1 FROM files WHERE quarantine_id = ? AND code = ? LIMIT 1"
        return self._one(query, (quarantine_id, code)) is not None

    def forget_file(self, quarantine_id: str, code: str) -> int:
        """Let a refused file be judged anew when it comes again; returns how many were forgotten."""
        return self._run("DELETE FROM files WHERE quarantine_id = ? AND code = ?", (quarantine_id, code))

    def settle_quarantined(self, quarantine_id: str, outcome: FileOutcome) -> int:
        """Give every file whose image lies under this identifier its last outcome; returns how many."""
        query = "UPDATE files SET code = ?, quarantine_id = ?, sop_uid = ?, quality = '{}' WHERE quarantine_id = ?"
        given = (outcome.code, outcome.quarantine_id, outcome.sop_uid, quarantine_id)
        with self.transaction():
            return self._run(query, given)

    def outcomes(self) -> dict[str, int]:
        """Number of incoming files by outcome code, over all ingestions."""
        return dict(self._all("SELECT code, COUNT(*) FROM files GROUP BY code ORDER BY code"))

    def record_ingest(self, report: Mapping[str, Any]) -> None:
        """Keep the report of one ingestion; values must be plain JSON and hold no patient attribute."""
        with self.transaction():
            text = json.dumps(dict(report), sort_keys=True)
            self._run("INSERT INTO ingests (at, report) VALUES (?, ?)", (now(), text))

    def ingests(self) -> list[dict[str, Any]]:
        """The reports of all ingestions, oldest first."""
        return [json.loads(record[0]) for record in self._all("SELECT report FROM ingests ORDER BY id")]


def _outcome(record: tuple[Any, ...]) -> FileOutcome:
    code, quarantine_id, sop_uid, modality, scanner, quality = record
    return FileOutcome(code, quarantine_id, sop_uid, modality, scanner, json.loads(quality))
