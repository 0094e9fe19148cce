"""Labels for images that came without a folder, from the archive, or that are still to come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.deid.pseudonyms import Pseudonyms
from client.index import GivenLabel, ImageRow, Index, Label, WaitingLabel
from client.index_labels import version_key
from client.intake.begin import begun
from client.intake.join import Arrived, Known, Shelf, check_whole, join
from client.intake.known import known
from client.intake.labels import read_labels
from client.site import Site
from common.audit import AuditLog
from common.errors import LabelError

ADDED: Final = "labels.added"


@dataclass(frozen=True)
class LabelsAdded:
    """What became of the lines of one table."""

    lines: int
    images: int
    """Images that the table names and that are here."""
    new: int
    """Of them, how many had no such label, or another split."""
    current: int
    """Of them, for how many another label counts now."""
    waiting: int
    """Labels whose image is not here: they are joined when it comes."""


@dataclass(frozen=True)
class Reader:
    """One version of one source."""

    source: str
    version: str
    images: int
    """It labels so many images that are here."""
    current: int
    """For so many of them it is the one that counts."""
    classes: dict[str, int]
    """Label to number of images."""


@dataclass(frozen=True)
class LabelCounts:
    """Who labelled what, and where they disagree."""

    images: int
    labelled: int
    readers: tuple[Reader, ...]
    read_twice: int
    """Images that two sources or more have labelled."""
    disagreements: int
    """Of them, those whose newest labels of each source are not all equal."""
    waiting: int
    waiting_by_source: dict[str, int]


def add_labels(site: Site, path: Path, *, keep_current: bool = False) -> LabelsAdded:
    """Give images that are in the store the labels of a table; the others wait.

    Args:
        site: the hospital.
        path: see `client.intake.labels`.
        keep_current: whether labels of another source stand beside those that count, as a second reader's do.

    Raises:
        LabelError: a line that is wrong, or contradicts a label of the same source and version; nothing changed.
        DataError: a patient would stand in two splits, or all labels would be of one class.
        StorageError: another ingestion is running, or the disk refuses.
    """
    table = read_labels(path)
    with begun(site) as index:
        held = index.images()

        def images() -> Iterator[Known]:
            """Every image with its keyed names."""
            return known(site.dicom, held, table.kind)

        shelf = Shelf(Pseudonyms.of(site), images, index.labels_of, keep_current=keep_current, may_wait=True)
        joined = join(table, Arrived(), shelf)
        check_whole(table, (joined.labelled.get(row.sop_uid, row) for row in held), joined.waiting)
        with index.transaction():
            new = sum(
                index.add_label(uid, given, keep_current=keep_current) for uid, given in joined.given.items()
            )
            _wait(index, joined.waiting, path.name)
        AuditLog(site.audit).append(ADDED, count=len(table.rows), images=new)
    before = {row.sop_uid: _said(row) for row in held}
    current = sum(_said(row) != before[uid] for uid, row in joined.labelled.items())
    return LabelsAdded(len(table.rows), len(joined.given), new, current, joined.without_image)


@dataclass
class LabelFeed:
    """A label table that is read whenever it changed, for images that come one by one: most of it waits."""

    site: Site
    path: Path
    _seen: tuple[int, int] = (-1, -1)
    """When it was changed last, in nanoseconds, and its size."""

    def read(self) -> None:
        """Give the table to the site if it is not there yet.

        Raises:
            LabelError, DataError, StorageError: as `add_labels`; it is read again the next time.
        """
        try:
            found = self.path.stat()
        except OSError:
            read_labels(self.path)  # says what is wrong with it
            return
        now = (found.st_mtime_ns, found.st_size)
        if now != self._seen:
            add_labels(self.site, self.path)
            self._seen = now


def count_labels(index: Index) -> LabelCounts:
    """Count who labelled what, over the images that are here."""
    rows = {row.sop_uid: row for row in index.images()}
    history = index.labels()
    latest = [_latest(given) for given in history.values()]
    twice = [by_source for by_source in latest if len(by_source) > 1]
    waiting = index.waiting()
    return LabelCounts(
        images=len(rows),
        labelled=sum(row.label is not None for row in rows.values()),
        readers=_readers(history, rows),
        read_twice=len(twice),
        disagreements=sum(len({repr(one.label) for one in by_source.values()}) > 1 for by_source in twice),
        waiting=len(waiting),
        waiting_by_source=dict(sorted(Counter(one.given.source for one in waiting).items())),
    )


def _readers(history: Mapping[str, Sequence[GivenLabel]], rows: Mapping[str, ImageRow]) -> tuple[Reader, ...]:
    classes: dict[tuple[str, str], Counter[str]] = {}
    current: Counter[tuple[str, str]] = Counter()
    for uid, given in history.items():
        for one in given:
            classes.setdefault((one.source, one.version), Counter())[_shown(one.label)] += 1
        current[rows[uid].label_source, rows[uid].label_version] += 1
    order = sorted(classes, key=lambda who: (who[0], version_key(who[1])))
    return tuple(
        Reader(*who, sum(classes[who].values()), current[who], dict(sorted(classes[who].items())))
        for who in order
    )


def _latest(given: Sequence[GivenLabel]) -> dict[str, GivenLabel]:
    """The newest label of each source."""
    found: dict[str, GivenLabel] = {}
    for one in sorted(given, key=lambda one: version_key(one.version)):
        found[one.source] = one
    return found


def _wait(index: Index, waiting: Sequence[WaitingLabel], table: str) -> None:
    try:
        index.wait_for_image(waiting)
    except LabelError as error:
        raise LabelError(table, error.rule, error.remedy, code=error.code) from None


def _said(row: ImageRow) -> tuple[object, ...]:
    return row.label, row.label_source, row.label_version


def _shown(label: Label) -> str:
    return ";".join(f"{value:g}" for value in label) if isinstance(label, tuple) else str(label)
