"""What came from an archive and is not yet taken in: identified files, on disk, outside the site's data.

    <inbox>/<study>/<instance>.dcm          received; the study's folder is a keyed code, never a UID or a name
    <inbox>/.incoming/*.part                being written; locked by its writer, worth nothing without one
    <inbox>/.taking/<batch>/<study>/…       being taken in; goes on where it was after a crash

Laws, in order:
1. An instance is acknowledged only when it is on the disk under its name, and stays there until an ingestion that
   had it in hand has committed.
2. The same instance twice is one file; another content under the same SOP instance UID is another file.
3. A study is complete when nothing came for so long; what comes later is a study again, with the same code.
4. Below the floor of free disk, or above the backlog, nothing more is accepted.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.deid.pseudonyms import Pseudonyms
from client.files import storage_error
from client.pacs.draft import Draft
from client.site import Site

__all__ = ["BACKLOG", "DISK", "Batch", "Draft", "Inbox"]

INCOMING: Final = ".incoming"
TAKING: Final = ".taking"
DISK, BACKLOG = "disk-floor", "backlog"
_COUNT_AGE_S: Final = 2.0
"""A count of waiting files may be this old; files that this process added since are in it."""
_TRIES: Final = 8
_CODE: Final = 32


@dataclass(frozen=True)
class Batch:
    """Studies in the hands of one ingestion."""

    folder: Path
    files: tuple[Path, ...]
    """Those that were there when it began; none else is removed at its end."""
    studies: int


class Inbox:
    """The folder of one site; any number of threads and processes may put in, one at a time takes.

    Args:
        folder: where it lies; made when missing, readable by its owner only.
        names: the site's pseudonyms.
        floor_bytes: free disk below which nothing is accepted.
        backlog: files above which nothing is accepted.

    Raises:
        StorageError: any method, when the disk is full or refuses.
    """

    def __init__(self, folder: Path, names: Pseudonyms, floor_bytes: int = 0, backlog: int = 20_000) -> None:
        self.folder = folder
        self._names = names
        self._floor = floor_bytes
        self._backlog = backlog
        self._lock = threading.Lock()
        self._count = 0
        self._counted = -_COUNT_AGE_S
        try:
            for path in (folder, folder / INCOMING, folder / TAKING):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.chmod(0o700)
        except OSError as error:
            raise storage_error(error, "the inbox") from None

    @classmethod
    def of(cls, site: Site) -> Inbox:
        """The inbox of a site, with the limits of its settings; what a killed writer left is swept."""
        listen = site.pacs.listen
        inbox = cls(site.inbox, Pseudonyms.of(site), int(listen.floor_gib * 2**30), listen.backlog)
        inbox.sweep()
        return inbox

    def sweep(self) -> None:
        """Remove drafts whose writer is gone."""
        for path in (self.folder / INCOMING).glob("*.part"):
            with suppress(OSError):
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
                finally:
                    os.close(handle)

    def full(self) -> str:
        """Why nothing is accepted now, `disk-floor` or `backlog`; empty when there is room."""
        if self.below_floor():
            return DISK
        with self._lock:
            if time.monotonic() - self._counted > _COUNT_AGE_S:
                self._count, self._counted = self.count(), time.monotonic()
            return BACKLOG if self._count >= self._backlog else ""

    def below_floor(self) -> bool:
        """Whether less disk is free than must stay free."""
        try:
            return shutil.disk_usage(self.folder).free < self._floor
        except OSError as error:
            raise storage_error(error, "the inbox") from None

    def draft(self) -> Draft:
        """Begin an instance."""
        try:
            return Draft(self.folder / INCOMING)
        except OSError as error:
            raise storage_error(error, "the inbox") from None

    def keep(self, draft: Draft, study: str, instance: str) -> bool:
        """Give a draft its place; it is on the disk when this returns.

        Args:
            draft: the whole file.
            study: study instance UID, or another word that only its companions share.
            instance: SOP instance UID.

        Returns:
            False when the same bytes were there already.
        """
        folder = self.folder / self._names.join("inbox-study", study)
        name = f"{self._names.join('inbox-instance', instance)[:16]}-{self._names.content(draft.digest)[:16]}.dcm"
        try:
            if not (there := (folder / name).exists()):
                draft.sync()
                self._place(draft, folder, name)
            else:
                os.utime(folder)  # its study is still arriving
        except OSError as error:
            raise storage_error(error, "the inbox") from None
        finally:
            draft.discard()
        with self._lock:
            self._count += not there
        return not there

    def _place(self, draft: Draft, folder: Path, name: str) -> None:
        """Rename into the study's folder, which a taker may move or remove at any moment."""
        for left in reversed(range(_TRIES)):
            try:
                new = _made(folder)
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.rename(draft.path, name, dst_dir_fd=handle)
                    os.fsync(handle)
                finally:
                    os.close(handle)
                if new:
                    _sync_folder(self.folder)
            except FileNotFoundError:
                if not left or not draft.path.exists():
                    raise
            else:
                return

    def held(self, study: str, instances: Collection[str]) -> frozenset[str]:
        """Of these instances of a study, those that wait here or are being taken in, whoever put them in."""
        code = self._names.join("inbox-study", study)
        batches = _folders(self.folder / TAKING)
        names: set[str] = set()
        for place in (self.folder, *batches):
            with suppress(FileNotFoundError):
                names.update(path.name.partition("-")[0] for path in (place / code).iterdir())
        return frozenset(one for one in instances if self._names.join("inbox-instance", one)[:16] in names)

    def count(self) -> int:
        """Files waiting or being taken in."""
        return sum(1 for _ in self._files())

    def complete(self, quiet_s: float) -> list[Path]:
        """Folders of studies for which nothing came in so many seconds, the longest waiting first.

        A clock that was set back would hold studies for ever; a folder far in the future counts as quiet.
        """
        now = time.time()
        found: list[tuple[float, Path]] = []
        for study in self._studies():
            with suppress(FileNotFoundError):
                since = study.stat().st_mtime
                if not -quiet_s < now - since < quiet_s:
                    found.append((since, study))
        return [study for _, study in sorted(found)]

    def take(self, studies: list[Path]) -> Batch:
        """Move studies into a batch of their own; instances that come later find a new folder."""
        folder = self.folder / TAKING / secrets.token_hex(8)
        try:
            folder.mkdir(mode=0o700)
            for study in studies:
                study.rename(folder / study.name)
        except OSError as error:
            raise storage_error(error, "the inbox") from None
        return self._batch(folder)

    def taken(self) -> list[Batch]:
        """Batches that a stop or a crash left behind, and those whose ingestion failed."""
        folders = sorted((self.folder / TAKING).iterdir(), key=lambda path: path.stat().st_mtime)
        batches = [self._batch(folder) for folder in folders]
        for batch in batches:
            if not batch.files:
                self.done(batch)
        return [batch for batch in batches if batch.files]

    def split(self, batch: Batch) -> list[Batch]:
        """A batch of its own for every study of a batch."""
        parts = [self.take([study]) for study in sorted(batch.folder.iterdir())]
        self.done(Batch(batch.folder, (), 0))
        return parts

    def done(self, batch: Batch) -> None:
        """Remove what an ingestion has committed; a file that slipped in meanwhile stays and is taken next."""
        try:
            for path in batch.files:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "the inbox") from None
        for folder in (*{path.parent for path in batch.files}, *_folders(batch.folder), batch.folder):
            with suppress(OSError):
                folder.rmdir()
        with self._lock:
            self._count = max(0, self._count - len(batch.files))

    def _batch(self, folder: Path) -> Batch:
        files = tuple(sorted(path for study in _folders(folder) for path in study.iterdir()))
        return Batch(folder, files, len({path.parent for path in files}))

    def _studies(self) -> Iterator[Path]:
        return (path for path in _folders(self.folder) if len(path.name) == _CODE)

    def _files(self) -> Iterator[Path]:
        batches = list(_folders(self.folder / TAKING))
        for study in (*self._studies(), *(study for batch in batches for study in _folders(batch))):
            with suppress(FileNotFoundError):
                yield from study.iterdir()


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
