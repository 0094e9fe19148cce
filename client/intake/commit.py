"""Index and store change together, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from client.files import storage_error
from client.index import FileOutcome, ImageRow
from client.intake.join import Joined
from client.intake.outcome import ACCEPTED, Outcome
from client.intake.process import Desk, Finished
from client.intake.quarantine import Quarantine
from client.intake.report import UNCHANGED, Tally
from common.errors import FileRefused

WITHDRAWN: Final = Outcome("withdrawn", "its patient has withdrawn", "Nothing to do: it stays out")


@dataclass
class Commit:
    """One change of index and store; use `run` once."""

    desk: Desk
    quarantine: Quarantine
    joined: Joined
    tally: Tally = field(default_factory=Tally)
    _moved: list[tuple[Path, Path]] = field(default_factory=list)
    _patients: dict[str, tuple[str, str]] = field(default_factory=dict)

    def run(self, finished: Sequence[Finished]) -> None:
        """Add every accepted image, set every label, note every outcome.

        Raises:
            StorageError: nothing was changed.
        """
        try:
            with self.desk.index.transaction():
                for one in finished:
                    self._settle(one)
                self._relabel()
        except BaseException:
            self._move_back()
            raise

    def _settle(self, one: Finished) -> None:
        outcome = self._known_patient(one)
        if outcome.accepted and one.row is not None:
            row = self.joined.labelled.get(one.row.sop_uid, one.row)
            try:
                added = self.desk.index.add_image(row)
            except FileRefused as refusal:
                outcome = replace(outcome, code=refusal.code, rule=refusal.rule, remedy=refusal.remedy)
            else:
                self._accepted(one, row, added=added)
                return
        elif outcome.patient and self.desk.index.is_withdrawn(outcome.patient, outcome.spend_key):
            outcome = replace(outcome, code=WITHDRAWN.code, rule=WITHDRAWN.rule, remedy=WITHDRAWN.remedy)
        self.tally.add(outcome.code, outcome.modality)
        if outcome.code == WITHDRAWN.code:
            self._note(one.key, FileOutcome(outcome.code, self.quarantine.put_reason(one.key, outcome)))
        elif outcome.code != UNCHANGED:
            name = self.quarantine.put(one.file.path, one.key, outcome)
            self._note(one.key, FileOutcome(outcome.code, name))

    def _known_patient(self, one: Finished) -> Outcome:
        """The outcome with its patient, also of a file that was not read because another had its content."""
        if one.row is not None:
            self._patients[one.key] = (one.row.patient, one.row.spend_key)
        elif one.outcome.patient:
            self._patients[one.key] = (one.outcome.patient, one.outcome.spend_key)
        patient, spend_key = self._patients.get(one.key, ("", ""))
        return replace(one.outcome, patient=patient, spend_key=spend_key)

    def _accepted(self, one: Finished, row: ImageRow, *, added: bool) -> None:
        self.tally.add(ACCEPTED if added else UNCHANGED, one.outcome.modality)
        if added:
            self._move(self.desk.staging.image(one.key), self.desk.site.dicom / row.file)
        self.quarantine.drop(one.key)
        self.desk.index.record_file(one.key, FileOutcome(ACCEPTED, sop_uid=row.sop_uid))

    def _note(self, key: str, outcome: FileOutcome) -> None:
        """Note a refusal, unless the same content was accepted: a copy of it is no other file."""
        before = self.desk.index.file_outcome(key)
        if before is None or before.code != ACCEPTED:
            self.desk.index.record_file(key, outcome)

    def _relabel(self) -> None:
        for uid, row in self.joined.labelled.items():
            held = self.desk.index.image(uid)
            if held is not None and _label(held) != _label(row):
                source, version, split = row.label_source, row.label_version, row.split
                self.desk.index.set_label(uid, row.label, source=source, version=version, split=split)

    def _move(self, source: Path, target: Path) -> None:
        if target.exists() and not source.exists():
            return  # an earlier run was killed between this move and its commit
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            source.replace(target)
        except OSError as error:
            raise storage_error(error, "the store of images") from None
        self._moved.append((source, target))

    def _move_back(self) -> None:
        for source, target in reversed(self._moved):
            target.replace(source)


def after(held: Sequence[ImageRow], finished: Sequence[Finished], joined: Joined) -> list[ImageRow]:
    """The images the index would hold after this commit, with their labels."""
    rows: Mapping[str, ImageRow] = {row.sop_uid: row for row in held} | {
        one.row.sop_uid: one.row for one in finished if one.row is not None and one.outcome.accepted
    }
    return [joined.labelled.get(uid, row) for uid, row in rows.items()]


def _label(row: ImageRow) -> tuple[object, ...]:
    plain = replace(row)
    return plain.label, plain.label_source, plain.label_version, plain.split
