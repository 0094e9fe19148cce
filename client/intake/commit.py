"""Index and store change together, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from client.deid.lookup import Entry, LookupTable
from client.deid.text.found import Decision
from client.files import storage_error
from client.index import FileOutcome, ImageRow, Index
from client.intake.durable import on_disk
from client.intake.join import Joined
from client.intake.outcome import ACCEPTED, CHANGED, Outcome
from client.intake.process import COPY, DISCARDED, Desk, Finished
from client.intake.quarantine import Quarantine
from client.intake.receipt import promise
from client.intake.refusals import ARCHIVE, FOLDER
from client.intake.report import UNCHANGED, IngestReport, Tally
from common.errors import FileRefused, StorageError

WITHDRAWN: Final = Outcome("withdrawn", "its patient has withdrawn", "Nothing to do: it stays out")


@dataclass
class Commit:
    """One change of index and store; use `run` once."""

    desk: Desk
    quarantine: Quarantine
    joined: Joined
    decision: Decision | None = None
    """What a person decided about these files, when they come out of the quarantine."""
    tally: Tally = field(default_factory=Tally)
    news: list[Finished] = field(default_factory=list)
    """The files whose fate changed, with what became of each; for the receipts."""
    _gone: list[str] = field(default_factory=list)
    """Contents whose original may leave the quarantine once the index says that they are in."""
    _moved: list[tuple[Path, Path]] = field(default_factory=list)
    _codes: dict[str, str] = field(default_factory=dict)
    """Of every content, what became of it."""

    @cached_property
    def _dicom(self) -> Path:
        return self.desk.site.dicom

    def run(self, finished: Sequence[Finished], report: Callable[[], IngestReport]) -> IngestReport:
        """Add every accepted image, set every label, note every outcome and the report of them all.

        The index is told last: what it names is on the disk, also after a power cut.

        Args:
            finished: every file of the folder.
            report: makes the report; called when the tally is complete.

        Raises:
            StorageError: nothing was changed.
        """
        images = "the de-identified images"
        on_disk(self.desk.staging.behind.left(self._incoming(finished), images), images)
        try:
            with self.desk.index.transaction():
                for one in finished:
                    self._settle(one)
                self._relabel()
                made = report()
                self.desk.index.record_ingest(made.as_record())
                promise(self.desk.site, self.news)
                self._remember(finished)
                on_disk(self._folders(), "the store of images")
        except BaseException:
            self._move_back()
            raise
        with suppress(StorageError):  # what stays now goes when the next one begins: see `settle`
            self.quarantine.drop_all(self._gone)
        return made

    def _remember(self, finished: Sequence[Finished]) -> None:
        """Let `deid lookup` find the originals again, before the index says that they are here."""
        entries = [
            Entry(one.outcome.spend_key, one.outcome.sealed)
            for one in finished
            if one.outcome.sealed and self._codes.get(one.key) != WITHDRAWN.code
        ]
        LookupTable(self.desk.site).add(entries)

    def _incoming(self, finished: Sequence[Finished]) -> Iterator[Path]:
        """The image files that may be new, where they lie now."""
        for one in finished:
            if one.row is not None and one.outcome.accepted:
                staged = self.desk.staging.image(one.key)
                yield staged if staged.exists() else self._dicom / one.row.file

    def _folders(self) -> list[Path]:
        """Every folder in which a name is new."""
        site = self.desk.site
        fixed = (path for path in (site.data, site.dicom, site.quarantine) if path.is_dir())
        return [*fixed, *sorted({target.parent for _, target in self._moved})]

    def _settle(self, one: Finished) -> None:
        if one.outcome.code == COPY.code:
            first = self._codes[one.key]
            self.tally.add(UNCHANGED if first == ACCEPTED else first, one.outcome.modality)
            return
        outcome = _known_patient(one)
        if outcome.accepted and one.row is not None:
            row = one.row
            try:
                added = self.desk.index.add_image(row)
            except FileRefused as refusal:
                outcome = replace(outcome, code=refusal.code, rule=refusal.rule, remedy=refusal.remedy)
            else:
                self._accepted(one, row, added=added)
                return
        elif outcome.patient and self.desk.index.is_withdrawn(outcome.patient, outcome.spend_key):
            outcome = replace(outcome, code=WITHDRAWN.code, rule=WITHDRAWN.rule, remedy=WITHDRAWN.remedy)
        self._codes[one.key] = outcome.code
        self.tally.add(outcome.code, outcome.modality)
        if outcome.code == WITHDRAWN.code:
            self.desk.index.forget_waiting(outcome.keys, patient=outcome.patient)
            self._note(one, outcome, self.quarantine.put_reason(one.key, outcome))
        elif outcome.code == CHANGED:  # what lies there now is not what this key names
            self._note(one, outcome, self.quarantine.put_reason(one.key, outcome))
        elif outcome.code not in (UNCHANGED, DISCARDED.code):
            name = self.quarantine.put(one.file, one.key, outcome, self._way(one), self.decision)
            self._note(one, outcome, name)

    def _way(self, one: Finished) -> str:
        """By which a file came; one that comes out of the quarantine was told when it went in."""
        if self.decision is not None:
            return ""
        return ARCHIVE if one.file.path.is_relative_to(self.desk.site.inbox) else FOLDER

    def _accepted(self, one: Finished, row: ImageRow, *, added: bool) -> None:
        code = ACCEPTED if added else UNCHANGED
        self._codes[one.key] = code
        self.tally.add(code, one.outcome.modality)
        if added:
            self._move(self.desk.staging.image(one.key), self._dicom / row.file)
            self.news.append(one)
            path = self.desk.names.join("path", one.file.relative)
            self.desk.index.join_waiting(row.sop_uid, row.patient, {**one.outcome.keys, "path": path})
        self._gone.append(one.key)
        accepted, before = FileOutcome(ACCEPTED, sop_uid=row.sop_uid), self.desk.index.file_outcome(one.key)
        if before is not None and before.quarantine_id:  # of all files that hold the image
            self.desk.index.settle_quarantined(before.quarantine_id, accepted)
            self._gone.append(before.quarantine_id)
        self.desk.index.record_file(one.key, accepted)

    def _note(self, one: Finished, outcome: Outcome, name: str) -> None:
        """Note a refusal, unless the same content was accepted before."""
        before = self.desk.index.file_outcome(one.key)
        if before is None or before.code != ACCEPTED:
            self.desk.index.record_file(one.key, _noted(outcome, name))
        if before is None or before.code != outcome.code:
            self.news.append(replace(one, outcome=outcome))

    def _relabel(self) -> None:
        """Every label of the table to its image, and those without an image to the ones that wait."""
        for uid, given in self.joined.given.items():
            if self.desk.index.image(uid) is not None:
                self.desk.index.add_label(uid, given, keep_current=self.joined.keep_current)
        self.desk.index.wait_for_image(self.joined.waiting)

    def _move(self, source: Path, target: Path) -> None:
        try:
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            source.replace(target)
        except FileNotFoundError as error:
            if target.exists():
                return  # an earlier run was killed between this move and its commit
            raise storage_error(error, "the store of images") from None
        except OSError as error:
            raise storage_error(error, "the store of images") from None
        self._moved.append((source, target))

    def _move_back(self) -> None:
        for source, target in reversed(self._moved):
            target.replace(source)


def settle(quarantine: Quarantine, index: Index) -> None:
    """Let the originals go that a run which was killed had taken in or discarded.

    Raises:
        StorageError: the disk refuses.
    """
    for refusal in quarantine.refusals():
        held = index.file_outcome(refusal.key) if refusal.key else None
        if held is not None and held.code in (ACCEPTED, DISCARDED.code):
            quarantine.drop(refusal.key)


def _noted(outcome: Outcome, name: str) -> FileOutcome:
    """A refusal as the index keeps it; of a patient who has withdrawn nothing but the code."""
    if outcome.code == WITHDRAWN.code:
        return FileOutcome(outcome.code, name)
    return FileOutcome(
        outcome.code, name, modality=outcome.modality, scanner=outcome.scanner, quality=outcome.figures
    )


def _known_patient(one: Finished) -> Outcome:
    """The outcome with its patient, also of a file that was not read because it is known."""
    if one.row is None:
        return one.outcome
    return replace(one.outcome, patient=one.row.patient, spend_key=one.row.spend_key)


def after(held: Sequence[ImageRow], finished: Sequence[Finished], joined: Joined) -> list[ImageRow]:
    """The images the index would hold after this commit, with their labels."""
    rows: Mapping[str, ImageRow] = {row.sop_uid: row for row in held} | {
        one.row.sop_uid: one.row for one in finished if one.row is not None and one.outcome.accepted
    }
    return [joined.labelled.get(uid, row) for uid, row in rows.items()]
