"""Refused originals, each beside its reason, named by a keyed code and not by what they were called."""

from __future__ import annotations

import json
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
        reason = Refusal(name, outcome.code, outcome.rule, outcome.remedy, outcome.modality)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = self._folder / f"{name}.bin"
            if original.is_file() and not kept.exists():
                with original.open("rb") as source, whole_file(kept) as target:
                    shutil.copyfileobj(source, target)
                kept.chmod(0o600)
        except OSError as error:
            raise storage_error(error, f"quarantine {name}") from None
        with whole_file(self._folder / f"{name}.json") as file:
            file.write(json.dumps(vars(reason), indent=1).encode("utf-8"))
        return name

    def drop(self, key: str) -> None:
        """Forget a file that was refused before and is accepted now."""
        for suffix in (".bin", ".json"):
            (self._folder / f"{key[:_ID_LENGTH]}{suffix}").unlink(missing_ok=True)

    def refusals(self) -> list[Refusal]:
        """Every refusal, by code and identifier."""
        found = [Refusal(**json.loads(path.read_bytes())) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda refusal: (refusal.code, refusal.id))
