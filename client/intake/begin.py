"""What every change of a site's images begins with: alone, and with what a killed one left put in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from client.files import storage_error, sweep
from client.index import Index
from client.intake.commit import settle
from client.intake.quarantine import Quarantine
from client.intake.receipt import deliver
from client.intake.staging import Staging, notes
from client.site import Site, check_key
from common.audit import AuditLog
from common.errors import StorageError
from common.locks import taken

EXPIRED: Final = "quarantine.expired"
SEALED: Final = "quarantine.sealed"


@contextmanager
def begun(site: Site) -> Iterator[Index]:
    """The site's index, for one ingestion or release at a time; the quarantine is in order.

    Raises:
        StorageError: `storage-busy`: another one is running; or the disk refuses.
        SettingsError: the key was rotated since this process started.
    """
    with alone(site), Index(site.index) as index:
        check_key(site)
        for unfinished in (site.quarantine, site.data / "volumes"):
            sweep(unfinished)
        deliver(site, index)
        undo_release(site, index)
        quarantine = Quarantine.of(site)
        settle(quarantine, index)
        if sealed := quarantine.seal_all():
            AuditLog(site.audit).append(SEALED, count=sealed)
        expire(site)
        yield index


def expire(site: Site) -> dict[str, int]:
    """Remove the originals that the policy keeps no longer, and say so in the audit log.

    Returns:
        how many, by the reason of their refusal.

    Raises:
        StorageError: the disk refuses.
    """
    gone = Counter(one.code for one in Quarantine.of(site).expire(site.policy.quarantine_days))
    for code, count in sorted(gone.items()):
        AuditLog(site.audit).append(EXPIRED, code=code, count=count)
    return dict(gone)


def release_staging(site: Site) -> Path:
    """Where an image that leaves the quarantine waits; apart from what an ingestion may go on with."""
    return site.data / "staging" / "release"


def undo_release(site: Site, index: Index) -> None:
    """Remove what a release that was killed had made, unless the index was told.

    Raises:
        StorageError: the disk refuses.
    """
    folder = release_staging(site)
    for outcome in notes(folder).values():  # what was not noted was not moved either
        row = outcome.row
        try:
            if row is not None and index.image(row["sop_uid"]) is None:
                (site.dicom / row["file"]).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "staging") from None
    if folder.exists():
        Staging(folder).clear()


@contextmanager
def alone(site: Site) -> Iterator[None]:
    """One ingestion or release at a time and site.

    Raises:
        StorageError: another one is running, or the data folder cannot be written.
    """
    path = site.data / ".ingest.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = taken(path)
    except BlockingIOError:
        raise StorageError(
            "the data folder", "another ingestion is running", "Wait until it ends", code="storage-busy"
        ) from None
    except OSError as error:
        raise storage_error(error, "the data folder") from None
    with lock:
        yield
