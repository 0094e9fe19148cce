"""De-identified files that wait for the end of their ingestion; what lets a killed one go on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

from client.files import storage_error
from client.intake.digests import is_whole
from client.intake.outcome import Outcome, outcome_from, to_json


class Staging:
    """A folder of finished work: `<key>.dcm` and, once it is whole, `<key>.json`.

    Raises:
        StorageError: any method, when the disk is full or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise storage_error(error, "staging") from None

    def keep(self, key: str, outcome: Outcome) -> None:
        """Note that this file is done; a note that is not whole is none, because its last brace is missing."""
        try:
            (self.folder / f"{key}.json").write_text(to_json(outcome), encoding="utf-8")
        except OSError as error:
            raise storage_error(error, "staging") from None

    def recall(self, key: str, final: Path) -> Outcome | None:
        """The outcome of a file that an interrupted ingestion had finished, if its image is still there, whole."""
        try:
            outcome = outcome_from((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        places = [self.image(key)] if outcome.row is None else [self.image(key), final / outcome.row["file"]]
        held = next((path for path in places if path.exists()), None)
        return outcome if held is not None and is_whole(held, outcome.digest) else None

    def image(self, key: str) -> Path:
        """Where the de-identified file of this key lies."""
        return self.folder / f"{key}.dcm"

    def drop(self, key: str) -> None:
        """Forget a file that is not to be taken in after all."""
        try:
            for suffix in (".json", ".dcm"):  # without its note the image is not recalled
                (self.folder / f"{key}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "staging") from None

    def clear(self) -> None:
        """Remove everything that waits."""
        shutil.rmtree(self.folder, ignore_errors=True)


def forget(folder: Path, pseudonym: str) -> None:
    """Remove what an interrupted ingestion had finished of a patient who withdraws.

    Raises:
        StorageError: a file cannot be removed.
    """
    for note in folder.glob("*.json"):
        try:
            if outcome_from(note.read_text(encoding="utf-8")).patient == pseudonym:
                note.with_suffix(".dcm").unlink(missing_ok=True)
                note.unlink(missing_ok=True)
        except ValueError:
            continue  # not whole: it will be made again, and refused then
        except OSError as error:
            raise storage_error(error, "staging") from None
