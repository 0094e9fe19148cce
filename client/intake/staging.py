"""De-identified files that wait for the end of their ingestion; what lets a killed one go on where it was."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Final

from client.files import storage_error
from client.intake.digests import is_whole
from client.intake.durable import Behind
from client.intake.outcome import Outcome, outcome_from, to_json

NOTES: Final = "notes.jsonl"
"""One line for each file that is done: its key and its outcome, or a dash for one that is done no more."""


class Staging:
    """A folder of finished work: `<key>.dcm`, and a line in the notes once it is whole.

    One file of notes and not one each: to make a file costs as much as all else that is done here for an image.

    Raises:
        StorageError: any method, when the disk is full or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.behind = Behind()
        self._notes: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise storage_error(error, "staging") from None

    @cached_property
    def _earlier(self) -> dict[str, Outcome]:
        return notes(self.folder)

    def keep(self, key: str, outcome: Outcome, line: str = "") -> None:
        """Note that this file is done; its image goes to the disk by the way.

        Args:
            key: of the file.
            outcome: what became of it.
            line: the same as the worker wrote it, so that it need not be written anew; empty: it is.
        """
        self._note(f"{key} {line or to_json(outcome)}\n")
        self.behind.begin(self.image(key))

    def _note(self, line: str) -> None:
        try:
            if self._notes is None or not os.fstat(self._notes).st_nlink:  # a withdrawal wrote them anew
                self.close()
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._notes = os.open(self.folder / NOTES, flags, 0o666)
            left = line.encode("utf-8")
            while left:
                left = left[os.write(self._notes, left) :]
        except OSError as error:
            raise storage_error(error, "staging") from None

    def close(self) -> None:
        """Write no more notes for now; `keep` and `drop` open them again."""
        if self._notes is not None:
            os.close(self._notes)
            self._notes = None

    def recall(self, key: str, final: Path) -> Outcome | None:
        """The outcome of a file that an interrupted ingestion had finished, if its image is still there, whole."""
        outcome = self._earlier.get(key)
        if outcome is None:
            return None
        places = [self.image(key)] if outcome.row is None else [self.image(key), final / outcome.row["file"]]
        held = next((path for path in places if path.exists()), None)
        return outcome if held is not None and is_whole(held, outcome.digest) else None

    def image(self, key: str) -> Path:
        """Where the de-identified file of this key lies."""
        return self.folder / f"{key}.dcm"

    def drop(self, key: str) -> None:
        """Forget a file that is not to be taken in after all."""
        self._note(f"{key} -\n")  # first: without its note the image is not recalled
        try:
            self.image(key).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "staging") from None

    def clear(self) -> None:
        """Remove everything that waits."""
        self.behind.stop()
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def notes(folder: Path) -> dict[str, Outcome]:
    """The outcomes noted in a staging folder, by key; a line that is not whole says nothing.

    Raises:
        StorageError: the notes are there and cannot be read.
    """
    try:
        lines = (folder / NOTES).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise storage_error(error, "staging") from None
    found: dict[str, Outcome] = {}
    for line in lines[:-1]:  # after the last line's end there is nothing, or half a line
        key, _, text = line.decode("utf-8", "replace").partition(" ")
        found.pop(key, None)
        try:
            found[key] = outcome_from(text)
        except ValueError:
            continue  # a dash, or a line that a power cut spoilt: that file is made again
    return found


def forget(folder: Path, pseudonym: str) -> None:
    """Remove what an interrupted ingestion had finished of a patient who withdraws.

    Raises:
        StorageError: a file cannot be removed.
    """
    known = notes(folder)
    theirs = {key for key, outcome in known.items() if outcome.patient == pseudonym}
    if not theirs:
        return
    path = folder / NOTES
    part = path.with_name(f".{NOTES}.{os.getpid()}.tmp")
    try:
        for key in theirs:
            (folder / f"{key}.dcm").unlink(missing_ok=True)
        left = (f"{key} {to_json(outcome)}\n" for key, outcome in known.items() if key not in theirs)
        part.write_text("".join(left), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_error(error, "staging") from None
