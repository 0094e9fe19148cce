"""What a worker says about one file: JSON only, so that a worker gone wrong cannot hand objects to its parent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

ACCEPTED: Final = "accepted"
STORAGE: Final = "storage"
"""Begins the codes by which a worker says that our own disk failed, not the file."""
MODALITIES: Final = frozenset(
    [
        "CR",
        "CT",
        "DX",
        "MR",
        "MG",
        "NM",
        "PT",
        "US",
        "SC",
        "OT",
        "XA",
        "RF",
        "SR",
        "PR",
        "KO",
        "SEG",
        "ECG",
        "DOC",
        "RTSTRUCT",
        "RTPLAN",
        "RTDOSE",
        "RTIMAGE",
    ]
)
"""Words that may stand in a count of files by modality; anything else is counted as `other`."""


@dataclass(frozen=True)
class Person:
    """What a table of images says about one picture that is no DICOM; text as it stands there."""

    patient_id: str
    age: str = ""
    sex: str = ""
    view: str = ""


@dataclass(frozen=True)
class Task:
    """One file for a worker. The path stays between parent and worker and is written nowhere."""

    number: int
    path: str
    key: str
    """Keyed digest of the content: the file's name from here on."""
    staging: str
    """Folder for the de-identified file."""
    person: Person | None = None
    """Given for PNG and JPEG, which are wrapped first."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file. Nothing in it identifies anybody: names are keyed, rows de-identified."""

    code: str
    rule: str = ""
    remedy: str = ""
    modality: str = "other"
    keys: Mapping[str, str] = field(default_factory=dict)
    """Pseudonyms of accession, study and instance, by which labels are joined."""
    patient: str = ""
    """Pseudonym, and the ledger name below, of the patient whom a file names that could be read; else empty."""
    spend_key: str = ""
    row: Mapping[str, Any] | None = None
    """Fields of `client.index.ImageRow`, without the label's."""
    digest: str = ""
    """SHA-256 of the de-identified file in hexadecimal; empty where none was written."""

    @property
    def accepted(self) -> bool:
        """Whether the file was de-identified and passed every gate of the worker."""
        return self.code == ACCEPTED


def to_json(thing: Task | Outcome) -> str:
    """One line of text."""
    return json.dumps(asdict(thing))


def task_from(text: str) -> Task:
    """A task from its line."""
    raw = json.loads(text)
    person = raw.pop("person")
    return Task(**raw, person=None if person is None else Person(**person))


def outcome_from(text: str) -> Outcome:
    """An outcome from its line.

    Raises:
        ValueError: the line is not an outcome.
    """
    try:
        raw = json.loads(text)
        return Outcome(**raw)
    except (TypeError, json.JSONDecodeError):
        raise ValueError("not an outcome") from None


def modality_word(value: object) -> str:
    """A modality as it may stand in a count."""
    word = str(value or "").strip(" \0").upper()
    return word if word in MODALITIES else "other"
