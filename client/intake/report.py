"""The figures of one ingestion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from client.intake.outcome import ACCEPTED


@dataclass(frozen=True)
class IngestReport:
    """What became of the files of one folder: received = accepted + unchanged + all refused."""

    received: int
    accepted: int
    unchanged: int
    """Taken in by an earlier ingestion, or sent twice: the same bytes, or the same image, in another file."""
    refused: dict[str, int]
    """Reason code to number of files."""
    patients: int
    """In the index, after this ingestion."""
    labels_without_image: int
    """Labels whose image came but was refused."""
    images_without_label: int
    """Images of this folder that are kept but cannot be learned from; 0 when no table was given."""
    seconds: float
    volumes: int = 0
    """CT and MR volumes assembled."""
    by_modality: dict[str, dict[str, int]] = field(default_factory=dict)
    """Reason code, `accepted` or `unchanged` to modality to number of files."""

    def as_record(self) -> Mapping[str, Any]:
        """Plain JSON for the index; volumes have their own table there, and come after."""
        return {key: value for key, value in asdict(self).items() if key != "volumes"}


@dataclass
class Tally:
    """Counts while an ingestion runs."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, code: str, modality: str) -> None:
        """Count one file."""
        self.counts[code, modality] += 1

    def total(self, code: str) -> int:
        """Files of one code."""
        return sum(n for (c, _), n in self.counts.items() if c == code)

    def refused(self) -> dict[str, int]:
        """Files by refusal code."""
        codes = sorted({c for c, _ in self.counts} - {ACCEPTED, UNCHANGED})
        return {code: self.total(code) for code in codes}

    def by_modality(self) -> dict[str, dict[str, int]]:
        """Files by code and modality."""
        table: dict[str, dict[str, int]] = {}
        for (code, modality), n in sorted(self.counts.items()):
            table.setdefault(code, {})[modality] = n
        return table


UNCHANGED = "unchanged"
