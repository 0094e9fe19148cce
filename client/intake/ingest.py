"""The one door into a hospital's store: a folder of files becomes de-identified images in the index.

Laws, in order:
1. Each file is read in a limited worker process, de-identified, written, scanned again, judged; a file that
   fails stays behind with a named reason, and the others go on.
2. Until every file is done and the labels have been joined and checked, index and store are untouched.
3. Then rows and files change together, or not at all.
4. A file that was taken in before is known by its keyed digest and costs nothing; an ingestion that was
   killed goes on where it was, and ends as if it had not been.
5. Files are on the disk before the index names them; volumes, bounds and the receipt follow from the index.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from client.deid.deface import check_extra
from client.deid.pseudonyms import Pseudonyms
from client.intake.begin import begun
from client.intake.commit import Commit, after
from client.intake.faces import without_faces
from client.intake.folder import check_apart, list_files
from client.intake.follow import follow
from client.intake.join import Arrived, Joined, Known, Shelf, check_labelled, check_splits, check_whole, join
from client.intake.known import known
from client.intake.labels import LabelTable, read_labels
from client.intake.outcome import ACCEPTED
from client.intake.pool import Limits
from client.intake.process import Desk, Effort, Finished, Progress, process
from client.intake.quarantine import Quarantine
from client.intake.report import UNCHANGED, IngestReport
from client.intake.staging import Staging
from client.site import Site
from common.errors import StorageError
from common.logs import Log

__all__ = ["IngestReport", "ingest"]

_LOG: Final = Log("client.intake")
NAMELESS: Final = frozenset(
    (
        "not-dicom",
        "parser-error",
        "parser-crash",
        "parser-limit",
        "deflate-bomb",
        "file-size",
        "file-unreadable",
        "file-changed",
        "internal",
        "duplicate-element",
        "file-special",
        "file-outside",
        "sop-class-missing",
    )
)
"""Codes of files that may be an image but could not be read far enough to say which."""


def ingest(
    site: Site,
    folder: Path,
    labels: Path | None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
    allow_unlabelled: bool = True,
) -> IngestReport:
    """Take a folder in, with its labels where there is a table.

    Args:
        site: the hospital.
        folder: DICOM files in any depth, or PNG and JPEG that the table names by `path`.
        labels: see `client.intake.labels`.
        workers: processes; all cores when None; 0: none but this one, for a virtual hospital.
        progress: called with files done and files in all.
        limits: what one file may cost; 1 GiB and 60 seconds when None.
        allow_unlabelled: whether a folder with a table may hold images that the table does not name.

    Raises:
        LabelError, IntakeError, DataError, StorageError: index and store are as they were.
        SettingsError: faces are to be removed, and what does it is not installed.
    """
    start = time.monotonic()
    check_apart(folder, (site.data, site.state, site.folder / "site.toml"))
    if site.deid.deface_head_mr:
        check_extra()
    table = None if labels is None else read_labels(labels)
    files = list_files(folder, labels, table)
    effort = Effort(workers, limits or Limits(), progress or _silent)
    with begun(site) as index:
        desk = Desk(site, index, Staging(site.data / "staging"), Pseudonyms.of(site))
        try:
            finished = process(desk, files, effort)
            if site.deid.deface_head_mr:
                finished = without_faces(desk, finished, effort)
            joined = _joined(desk, finished, table)
            if table is not None and not allow_unlabelled:
                check_labelled(table, len(_unlabelled(finished, joined)))
            report = _committed(desk, finished, joined, Frame(start, labelled=table is not None))
        except StorageError:
            desk.staging.clear()
            raise
        finally:
            desk.staging.close()
        desk.staging.clear()
        report = replace(report, volumes=follow(site, index, report), seconds=time.monotonic() - start)
    _LOG.info("ingest.done", site=site.name, files=report.received, images=report.accepted)
    return report


def _joined(desk: Desk, finished: Sequence[Finished], table: LabelTable | None) -> Joined:
    if table is None:
        _check_waiting(desk, finished)
        return Joined()
    held = desk.index.images()
    here = {one.row.sop_uid for one in finished if one.row is not None}
    arrived = _arrived(desk, finished, table.kind)

    def earlier() -> Iterator[Known]:
        return known(desk.site.dicom, (row for row in held if row.sop_uid not in here), table.kind)

    joined = join(table, arrived, Shelf(desk.names, earlier, desk.index.labels_of))
    check_whole(table, after(held, finished, joined))
    return joined


def _check_waiting(desk: Desk, finished: Sequence[Finished]) -> None:
    """See that the labels that wait for these images put no patient into two splits."""
    new = [one for one in finished if one.row is not None and one.outcome.accepted]
    named = [
        (one.row.patient, label.given.split)
        for one in new
        if one.row is not None
        for label in desk.index.named(one.outcome.keys)
        if label.given.split
    ]
    if named:
        held = ((row.patient, row.split) for row in desk.index.images())
        check_splits("the labels that waited for these images", [*held, *named])


def _arrived(desk: Desk, finished: Sequence[Finished], kind: str) -> Arrived:
    """The folder as labels see it; a path is a name even of a file that could not be read."""
    images: list[Known] = []
    refused: list[dict[str, str]] = []
    nameless = 0
    for one in finished:
        path = {"path": desk.names.join("path", one.file.relative)}
        if one.row is None:
            refused.append({**one.outcome.keys, **path, "patient": one.outcome.patient})
            nameless += kind not in refused[-1] and one.outcome.code in NAMELESS and one.file.may_be_image
        elif one.outcome.accepted:
            images.append(Known(one.row, {**one.outcome.keys, **path}))
        else:
            (held,) = known(desk.site.dicom, [one.row], kind)
            images.append(Known(held.row, {**held.keys, **path}))
    return Arrived(tuple(images), tuple(refused), nameless)


@dataclass(frozen=True)
class Frame:
    """What a report says of an ingestion as a whole."""

    start: float
    """By the monotonic clock, in seconds."""
    labelled: bool
    """Whether there was a table of labels."""


def _committed(desk: Desk, finished: Sequence[Finished], joined: Joined, frame: Frame) -> IngestReport:
    commit = Commit(desk, Quarantine.of(desk.site), joined)
    unlabelled = len(_unlabelled(finished, joined)) if frame.labelled else 0
    return commit.run(finished, lambda: _report(commit, len(finished), unlabelled, frame))


def _report(commit: Commit, received: int, unlabelled: int, frame: Frame) -> IngestReport:
    return IngestReport(
        received=received,
        accepted=commit.tally.total(ACCEPTED),
        unchanged=commit.tally.total(UNCHANGED),
        refused=commit.tally.refused(),
        patients=commit.desk.index.n_patients(),
        labels_without_image=commit.joined.without_image,
        images_without_label=unlabelled,
        seconds=time.monotonic() - frame.start,
        by_modality=commit.tally.by_modality(),
    )


def _unlabelled(finished: Sequence[Finished], joined: Joined) -> set[str]:
    """The images of this folder that no label was found for."""
    return {one.row.sop_uid for one in finished if one.row is not None} - joined.labelled.keys()


def _silent(_done: int, _total: int) -> None:
    """Tell nobody."""
