"""Refused originals, each beside its reason, named by a keyed code and not by what they were called."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from client.files import storage_error, whole_file
from client.intake.outcome import Outcome

_ID_LENGTH = 16


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


class Quarantine:
    """The folder of refused originals; readable by its owner only.

    Raises:
        StorageError: any method, when the disk is full or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, original: Path, key: str, outcome: Outcome) -> str:
        """Keep a copy of a refused file and its reason; the same file again changes nothing.

        Returns:
            the quarantine identifier.
        """
        name = key[:_ID_LENGTH]
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The reason first: it says whose the original is, and a withdrawal must find that.
            self._say(
                Refusal(name, outcome.code, outcome.rule, outcome.remedy, outcome.modality, outcome.patient)
            )
            kept = self._folder / f"{name}.bin"
            if original.is_file() and not kept.exists():
                with original.open("rb") as source, whole_file(kept) as target:
                    os.fchmod(target.fileno(), 0o600)
                    shutil.copyfileobj(source, target)
        except OSError as error:
            raise storage_error(error, f"quarantine {name}") from None
        return name

    def put_reason(self, key: str, outcome: Outcome) -> str:
        """Say why a file was refused and keep no copy of it, nor one from before, nor whose it was.

        Returns:
            the quarantine identifier.
        """
        name = key[:_ID_LENGTH]
        self._remove(f"{name}.bin")
        self._say(Refusal(name, outcome.code, outcome.rule, outcome.remedy, outcome.modality))
        return name

    def drop(self, key: str) -> None:
        """Forget a file that was refused before and is accepted now."""
        for suffix in (".bin", ".json"):
            self._remove(f"{key[:_ID_LENGTH]}{suffix}")

    def withdraw(self, pseudonym: str) -> tuple[str, ...]:
        """Remove every original of a patient with its reason; returns their identifiers.

        Files that could not be read far enough to name a patient stay.
        """
        gone = [refusal.id for refusal in self.refusals() if refusal.patient == pseudonym]
        for name in gone:
            self._remove(f"{name}.bin")
            self._remove(f"{name}.json")  # last: a withdrawal that was cut short finds it again
        return tuple(gone)

    def _say(self, reason: Refusal) -> None:
        with whole_file(self._folder / f"{reason.id}.json") as file:
            file.write(json.dumps(vars(reason), indent=1).encode("utf-8"))

    def _remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, f"quarantine {name}") from None

    def refusals(self) -> list[Refusal]:
        """Every refusal, by code and identifier."""
        found = [Refusal(**json.loads(path.read_bytes())) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda refusal: (refusal.code, refusal.id))
