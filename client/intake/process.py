"""Every file of a folder to its outcome; nothing of the index or the store changes here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from client.deid.pseudonyms import Pseudonyms
from client.deid.text.found import Decision
from client.index import ImageRow, Index
from client.intake.folder import Content, Incoming
from client.intake.known import bounds
from client.intake.outcome import ACCEPTED, CHANGED, STORAGE, Outcome, Task
from client.intake.pool import Answer, Limits, Pool, Setup
from client.intake.report import UNCHANGED
from client.intake.staging import Staging
from client.site import Site
from common.errors import StorageError

if TYPE_CHECKING:
    from client.intake.here import Here

Progress = Callable[[int, int], None]
"""Files done and files in all."""
DUPLICATE: Final = Outcome(
    "quality-duplicate", "the same image of the same patient is there already", "Nothing to do: one is enough"
)
COPY: Final = Outcome("copy")
"""The same bytes stand in this folder already, under another name; the first of them decides for all."""
DISCARDED: Final = Outcome(
    "discarded",
    "a person looked at it and refused it",
    "Nothing to do: it stays out. If that was a mistake: consilium-site quarantine discard ID --undo",
)
_UNREADABLE: Final = Outcome(
    "file-unreadable", "it cannot be read", "Check its rights and the disk it lies on"
)
_NOTHING: Final = Content(b"")
_MOVED: Final = Outcome(
    CHANGED, "it changed while it was being taken in", "Repeat the same command once nothing writes to it"
)


@dataclass(frozen=True)
class Finished:
    """One file, its keyed name and what became of it; `row` for images that are or will be in the index."""

    file: Incoming
    key: str
    outcome: Outcome
    row: ImageRow | None = None


@dataclass(frozen=True)
class Desk:
    """Where an ingestion works: one site, its index, its staging folder."""

    site: Site
    index: Index
    staging: Staging
    names: Pseudonyms


@dataclass(frozen=True)
class Effort:
    """How much machine an ingestion may use, and whom it tells how far it is."""

    workers: int | None
    limits: Limits
    progress: Progress


def process(
    desk: Desk, files: Sequence[Incoming], effort: Effort, decision: Decision | None = None
) -> list[Finished]:
    """Bring every file to its outcome, in the order given.

    Args:
        desk: where.
        files: what came.
        effort: at what cost.
        decision: what a person decided about these files; they were refused before.

    Raises:
        StorageError: the staging folder cannot be written.
        IntakeError: no worker process can be started.
    """
    done: dict[int, Finished] = {}
    plain = _tasks(desk, files, done)
    tasks = plain if decision is None else (replace(task, decision=decision) for task in plain)
    for task, outcome, line in _worked(desk, tasks, effort):
        if outcome.accepted:
            desk.staging.keep(task.key, outcome, line)
        done[task.number] = _finished(files[task.number], task.key, outcome)
        effort.progress(len(done), len(files))
    effort.progress(len(done), len(files))
    return _without_duplicates(desk, [done[number] for number in range(len(files))])


def prove(desk: Desk, changed: Sequence[Finished], effort: Effort) -> dict[str, Outcome]:
    """Scan staged files that were changed after their own scan once more, each for what its original names.

    Returns:
        of every key `accepted`, or why the file may not be kept.

    Raises:
        StorageError: a staged file cannot be read.
        IntakeError: no worker process can be started.
    """
    found: dict[str, Outcome] = {}
    tasks = []
    for number, one in enumerate(changed):
        try:
            digest = one.file.content().digest
        except OSError:
            digest = b""
        if one.file.key(desk.names, digest) != one.key:
            found[one.key] = _MOVED
            continue
        path, staging = str(one.file.path), str(desk.staging.folder)
        person = one.file.person
        tasks.append(Task(number, path, one.key, staging, person, digest=digest.hex(), prove=True))
    if tasks:
        found |= {one.task.key: one.outcome for one in _worked(desk, tasks, effort)}
    return found


def _worked(desk: Desk, tasks: Iterable[Task], effort: Effort) -> Iterator[Answer]:
    """Tasks with their outcomes, from a pool of workers.

    Raises:
        StorageError: a worker says that our own disk failed.
    """
    setup = Setup(desk.names, bounds(desk.index), effort.limits, desk.site.deid, desk.site.tighten)
    with _hands(desk.site, setup, effort.workers) as hands:
        for answer in hands.answers(tasks):
            outcome = answer.outcome
            if outcome.code.startswith(STORAGE):
                raise StorageError("the staging folder", outcome.rule, outcome.remedy, code=outcome.code)
            yield answer


def _hands(site: Site, setup: Setup, workers: int | None) -> Pool | Here:
    if workers != 0:
        return Pool(setup, workers)
    from client.intake.here import Here  # noqa: PLC0415 - what reads files is for workers to import

    return Here(site, setup)


def _tasks(desk: Desk, files: Sequence[Incoming], done: dict[int, Finished]) -> Iterator[Task]:
    """Tasks for the files that need work; what is known already goes straight to `done`."""
    seen: set[str] = set()
    staging = str(desk.staging.folder)
    for number, file in enumerate(files):
        try:
            refusal, content = file.refusal, _NOTHING if file.refusal else file.content()
        except OSError:
            refusal, content = _UNREADABLE, _NOTHING
        if refusal is not None:
            key = desk.names.content(hashlib.sha256(file.relative.encode("utf-8")).digest())
            done[number] = Finished(file, key, refusal)
            continue
        key = file.key(desk.names, content.digest)
        ready = Finished(file, key, COPY) if key in seen else _ready(desk, file, key)
        seen.add(key)
        if ready is not None:
            done[number] = ready
            continue
        digest = content.digest.hex()
        yield Task(number, str(file.path), key, staging, file.person, digest=digest, stamp=content.stamp)


def _ready(desk: Desk, file: Incoming, key: str) -> Finished | None:
    before = desk.index.file_outcome(key)
    if before is not None and before.code == ACCEPTED:
        row = desk.index.image(before.sop_uid)
        if row is not None:
            return Finished(file, key, Outcome(UNCHANGED, modality=row.modality), row)
    if before is not None and before.code == DISCARDED.code:
        return Finished(file, key, DISCARDED)
    staged = desk.staging.recall(key, desk.site.dicom)
    return None if staged is None else _finished(file, key, staged)


def _finished(file: Incoming, key: str, outcome: Outcome) -> Finished:
    row = ImageRow(**outcome.row) if outcome.row is not None else None
    return Finished(file, key, outcome, row)


def _without_duplicates(desk: Desk, finished: list[Finished]) -> list[Finished]:
    """Turn away exact copies of the pixels of one patient; the first in order stays."""
    there = {(row.patient, row.pixel_digest): row.sop_uid for row in desk.index.images()}
    kept: list[Finished] = []
    for one in finished:
        row = one.row
        if row is None or not one.outcome.accepted:
            kept.append(one)
            continue
        first = there.setdefault((row.patient, row.pixel_digest), row.sop_uid)
        same = replace(
            one.outcome, code=DUPLICATE.code, rule=DUPLICATE.rule, remedy=DUPLICATE.remedy, row=None
        )
        kept.append(one if first == row.sop_uid else Finished(one.file, one.key, same))
    return kept
