"""What a worker says about one file: JSON only, so that a worker gone wrong cannot hand objects to its parent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from client.deid.text.found import Box, Decision
from client.intake.stamp import Stamp

ACCEPTED: Final = "accepted"
CHANGED: Final = "file-changed"
"""Of a file whose bytes are no longer those by which it is known; nothing of it is kept."""
REVIEW: Final = "review-"
"""Begins the codes of images that wait for a person, with the boxes found in them."""
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
    decision: Decision | None = None
    """Given for an image that a person let out of review."""
    digest: str = ""
    """SHA-256 of the bytes from which the key was made, in hexadecimal; empty: not compared."""
    stamp: Stamp | None = None
    """Of the file from which the key was made; where it still fits, the digest is not made again."""
    prove: bool = False
    """Only scan the staged file of this key again, for what this original names."""


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
    boxes: tuple[Box, ...] = ()
    """Of an image in review: the places a person should look at. Of an accepted one: what was blanked."""
    actions: Mapping[str, int] = field(default_factory=dict)
    """How many elements were kept, given a pseudonym, shifted, generalised, emptied, removed; boxes blanked."""
    methods: tuple[str, ...] = ()
    """Codes of PS3.16 CID 7050 for what was really done to this image."""
    sealed: Mapping[str, str] = field(default_factory=dict)
    """Pseudonym to the original it stands for, encrypted by `client.deid.lookup.seal`; for the look-up table."""

    scanner: str = ""
    """Keyed hash of the device, where the file was de-identified before it was refused; else empty."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the quality gate measured, also in an image that it refused."""
    image: str = ""
    """Keyed digest of patient, instance and pixels: the same in every file that holds this image; else empty."""

    @property
    def waits(self) -> bool:
        """Whether a person must decide about this file."""
        return self.code.startswith(REVIEW)

    @property
    def accepted(self) -> bool:
        """Whether the file was de-identified and passed every gate of the worker."""
        return self.code == ACCEPTED


_ENCODER: Final = json.JSONEncoder(default=vars)


def to_json(thing: Task | Outcome) -> str:
    """One line of text."""
    return _ENCODER.encode(vars(thing))


def task_from(text: str) -> Task:
    """A task from its line."""
    raw = json.loads(text)
    person, decision, stamp = raw.pop("person"), raw.pop("decision"), raw.pop("stamp")
    return Task(
        **raw,
        person=None if person is None else Person(**person),
        decision=None if decision is None else _decision(decision),
        stamp=None if stamp is None else Stamp(*stamp),
    )


def outcome_from(text: str) -> Outcome:
    """An outcome from its line.

    Raises:
        ValueError: the line is not an outcome.
    """
    try:
        raw = json.loads(text)
        raw["boxes"] = tuple(Box(*map(int, box)) for box in raw.get("boxes", ()))
        raw["methods"] = tuple(map(str, raw.get("methods", ())))
        raw["figures"] = {str(name): float(value) for name, value in raw.get("figures", {}).items()}
        return Outcome(**raw)
    except (AttributeError, TypeError, ValueError):
        raise ValueError("not an outcome") from None


def _decision(raw: Mapping[str, Any]) -> Decision:
    return Decision(tuple(Box(*map(int, box)) for box in raw["blank"]), tuple(map(str, raw["waive"])))


def modality_word(value: object) -> str:
    """A modality as it may stand in a count."""
    word = str(value or "").strip(" \0").upper()
    return word if word in MODALITIES else "other"
