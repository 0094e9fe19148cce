"""From the inbox into the site: complete studies by one ingestion, and out of the inbox once it has committed.

Laws, in order:
1. Only `ingest` writes into the site. What it accepted is in the index, what it refused is in quarantine; only then
   do the files leave the inbox.
2. A batch whose ingestion fails stays whole and is tried again after growing pauses; the studies that come meanwhile
   are batches of their own.
3. A batch that fails for a reason that is not the disk's is split, so that one study cannot hold up the others.
4. A stop ends between two files; the next start goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.files import storage_error
from client.intake.ingest import IngestReport, ingest
from client.intake.relabel import LabelFeed
from client.pacs.inbox import Batch, Inbox
from client.site import Site
from common.errors import ConsiliumError, SettingsError, StorageError
from common.locks import taken
from common.logs import Log

FIRST_PAUSE_S: Final = 5.0
LAST_PAUSE_S: Final = 600.0
MAX_FILES: Final = 5_000
"""A batch is closed by the study with which it reaches so many files: a stop then loses little."""
_BUSY: Final = "storage-busy"
_LOG: Final = Log("client.pacs")


class _Stopped(Exception):
    """Somebody asked us to end, in the middle of an ingestion."""


@dataclass(frozen=True)
class Taking:
    """How a site takes its studies in."""

    quiet_s: float
    labels: Path | None = None
    workers: int | None = None


@dataclass
class Taken:
    """What was taken in since the start, in files, and the error that holds the rest up."""

    studies: int = 0
    accepted: int = 0
    unchanged: int = 0
    refused: int = 0
    failed: int = 0
    """Ingestions that failed; each is tried again."""
    error: ConsiliumError | None = None

    def add(self, studies: int, report: IngestReport) -> None:
        """Count one ingestion."""
        self.studies += studies
        self.accepted += report.accepted
        self.unchanged += report.unchanged
        self.refused += sum(report.refused.values())


@dataclass
class _Pause:
    """When a batch may be tried again, by the monotonic clock."""

    length_s: float = FIRST_PAUSE_S
    until: float = 0.0

    def grow(self) -> None:
        """Wait, and twice as long the next time."""
        self.until = time.monotonic() + self.length_s
        self.length_s = min(2 * self.length_s, LAST_PAUSE_S)


@dataclass
class Taker:
    """Takes from one inbox; use it inside `alone`.

    Args:
        site: where to.
        inbox: where from.
        how: quiet time, labels, processes.
        stopping: asked before each file whether to end.
    """

    site: Site
    inbox: Inbox
    how: Taking
    stopping: Callable[[], bool] = lambda: False
    taken: Taken = field(default_factory=Taken)
    _pauses: dict[Path, _Pause] = field(default_factory=dict)
    _labels: LabelFeed | None = field(init=False)

    def __post_init__(self) -> None:
        """Labels wait for their images, which come study by study."""
        self._labels = None if self.how.labels is None else LabelFeed(self.site, self.how.labels)

    def turn(self) -> int:
        """Take in what is complete and due; returns the number of ingestions begun.

        An error of one batch is kept in `taken.error` and does not pass through; a later success clears it.
        """
        begun = 0
        for batch in self._due():
            if self.stopping():
                break
            begun += 1
            if not self._take(batch):
                break
        return begun

    def _due(self) -> Iterator[Batch]:
        now = time.monotonic()
        left = self.inbox.taken()
        self._pauses = {b.folder: p for b in left if (p := self._pauses.get(b.folder))}
        for batch in left:
            if batch.folder not in self._pauses or self._pauses[batch.folder].until <= now:
                yield batch
        for studies in _portions(self.inbox.complete(self.how.quiet_s)):
            yield self.inbox.take(studies)

    def _take(self, batch: Batch) -> bool:
        """One ingestion; False to end the turn."""
        try:
            if self._labels is not None:
                self._labels.read()  # a table that cannot be read is no study's fault
        except ConsiliumError as error:
            self._failed(batch, error)
            return False
        try:
            report = ingest(self.site, batch.folder, None, workers=self.how.workers, progress=self._progress)
        except _Stopped:
            return False
        except (StorageError, SettingsError) as error:
            if error.code == "storage-after":
                self._committed(batch)
            self._failed(batch, error)
            return False
        except ConsiliumError as error:
            self._apart(batch, error)
            return True
        except Exception as error:  # noqa: BLE001 - our own mistake on one study must not hold up the others
            _LOG.error("pacs.take_failed", kind=type(error).__name__.casefold())
            self._apart(batch, _unexpected())
            return True
        self.taken.add(batch.studies, report)
        self.taken.error = None
        self._committed(batch)
        _LOG.info("pacs.taken", images=report.accepted, files=report.received, seconds=report.seconds)
        return True

    def _progress(self, _done: int, _total: int) -> None:
        if self.stopping():
            raise _Stopped

    def _committed(self, batch: Batch) -> None:
        self._pauses.pop(batch.folder, None)
        self.inbox.done(batch)

    def _failed(self, batch: Batch, error: ConsiliumError) -> None:
        self.taken.error = error
        self.taken.failed += 1
        pause = self._pauses.setdefault(batch.folder, _Pause())
        if error.code == _BUSY:
            pause.length_s = FIRST_PAUSE_S
        pause.grow()
        _LOG.warning("pacs.take_waits", code=error.code, seconds=pause.until - time.monotonic())

    def _apart(self, batch: Batch, error: ConsiliumError) -> None:
        """Let every study of a failed batch go its own way from the next turn on."""
        if batch.studies > 1:
            _LOG.warning("pacs.batch_split", code=error.code, count=batch.studies)
            self.inbox.split(batch)
        else:
            self._failed(batch, error)


@contextmanager
def alone(inbox: Inbox) -> Iterator[None]:
    """One taker at a time and inbox.

    Raises:
        StorageError: `storage-busy`, another one takes from it.
    """
    path = inbox.folder / ".taker.lock"
    try:
        lock = taken(path)
    except BlockingIOError:
        raise StorageError(
            "the inbox", "another listener takes from it", "Stop that one first", code=_BUSY
        ) from None
    except OSError as error:
        raise storage_error(error, "the inbox") from None
    with lock:
        yield


def has_taker(inbox: Inbox) -> bool:
    """Whether another process of this site takes from the inbox, as a running listener does.

    Raises:
        StorageError: the inbox cannot be written.
    """
    try:
        with alone(inbox):
            return False
    except StorageError as error:
        if error.code != _BUSY:
            raise
        return True


def _portions(studies: list[Path]) -> Iterator[list[Path]]:
    """Studies in batches of about `MAX_FILES` files."""
    batch: list[Path] = []
    files = 0
    for study in studies:
        batch.append(study)
        files += sum(1 for _ in study.iterdir())
        if files >= MAX_FILES:
            yield batch
            batch, files = [], 0
    if batch:
        yield batch


def _unexpected() -> ConsiliumError:
    return ConsiliumError(
        "a study from the archive",
        "taking it in failed in a way nobody foresaw",
        "Please report it with the line pacs.take_failed of the log; the study is still in the inbox",
        code="unexpected",
    )
