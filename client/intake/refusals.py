"""One refusal of the quarantine: why a file is there, as it is written beside the sealed original, and read again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from client.deid.text.found import Box, Decision
from client.files import storage_error
from client.intake.outcome import REVIEW

FOLDER: Final = "folder"
ARCHIVE: Final = "archive"
"""The ways by which a file comes: a folder that a person gave, and the inbox of what archives sent."""


@dataclass(frozen=True)
class Refusal:
    """One file in quarantine and why it is there."""

    id: str
    code: str
    rule: str
    remedy: str
    modality: str
    patient: str = ""
    """Pseudonym, where the file told it; empty once the patient withdrew."""
    spend_key: str = ""
    """The patient's name in the privacy ledger, which outlives a change of pseudonyms."""
    key: str = ""
    """Keyed digest of the content, under which the index knows the file."""
    since: str = ""
    """UTC, ISO 8601: when it was first refused."""
    bytes: int = 0
    """Size of the original."""
    boxes: tuple[Box, ...] = ()
    """Places a person should look at."""
    decision: Decision = field(default_factory=Decision)
    """What persons have decided so far, when one decision led to the next question."""
    image: str = ""
    """See `client.intake.outcome.Outcome`; empty where the file did not tell."""
    ways: tuple[str, ...] = ()
    """By which the image came, first to last; empty in a reason that an older release wrote."""

    @property
    def waits(self) -> bool:
        """Whether a person must decide about it."""
        return self.code.startswith(REVIEW)

    @property
    def state(self) -> str:
        """`waiting` for a person, or `refused`."""
        return "waiting" if self.waits else "refused"

    def ends(self, days: int) -> datetime:
        """When it will be removed under a policy of so many days."""
        return datetime.fromisoformat(self.since) + timedelta(days=days)


def read_reason(path: Path) -> Refusal:
    """The refusal in this file; one that cannot be read has the code `reason-lost`.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_bytes())
        raw["boxes"] = _boxes(raw.get("boxes", ()))
        held = raw.get("decision", {})
        raw["decision"] = Decision(_boxes(held.get("blank", ())), tuple(map(str, held.get("waive", ()))))
        raw["ways"] = tuple(map(str, raw.get("ways", ())))
        return Refusal(**raw)
    except OSError as error:
        raise storage_error(error, f"quarantine {path.stem}") from None
    except (AttributeError, TypeError, ValueError):
        return lost(path)


def lost(path: Path) -> Refusal:
    """The refusal of an original whose reason is gone."""
    since = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    said = ("reason-lost", "its reason cannot be read any more", "Send the file again; discard this one")
    return Refusal(path.stem, *said, "other", since=since)


def _boxes(raw: Iterable[Iterable[int]]) -> tuple[Box, ...]:
    return tuple(Box(*map(int, box)) for box in raw)
