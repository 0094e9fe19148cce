"""Another pseudonym key: everything under the old pseudonyms goes, and is made again from the archive.

What stays: the spend key and the privacy ledger, untouched, so that no patient gets a fresh budget; who
withdrew; which runs used whom, and each patient's part of a split, all by ledger name.

The note `rotating.json` in the folder of the keys is the point of no return. Before it nothing has changed, and
what was prepared is made again. After it nothing else starts (`client.site.load_site`), and every step can be
repeated: a rotation that was cut short anywhere is finished by the same command.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from client.deid.lookup import LookupTable, retired_key, retired_path
from client.files import storage_error, whole_file
from client.index import Index
from client.index_carry import Memory
from client.intake.begin import alone, begun
from client.intake.durable import on_disk
from client.intake.quarantine import Quarantine
from client.privacy.ledger import Ledger
from client.site import Site, load_site
from client.site_keys import KEY_BYTES, ROTATING
from common.audit import AuditLog
from common.errors import InputError, StorageError

_NEXT: Final = "pseudonym.next.key"
_KEY: Final = "pseudonym.key"
_PREPARED: Final = "rotating"
"""Folder in the data in which the index of the new pseudonyms waits."""
_RETIRED: Final = "retired"
"""Folder in the data into which everything under the old pseudonyms goes before it is removed."""
_OLD: Final = ("dicom", "store", "scores", "volumes", "quarantine", "staging")
_DATABASE: Final = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Rotation:
    """What a rotation did; counts only."""

    withdrawn: int
    """Patients who stay out."""
    awaited: int
    """Patients of earlier runs or splits whose images must be taken in again."""
    old_key: str
    """`kept` until it is confirmed, or `destroyed`."""


@dataclass(frozen=True)
class AtStake:
    """What a rotation removes and re-ingesting brings back, but for what persons decided about the quarantine."""

    images: int
    quarantined: int


def at_stake(site: Site) -> AtStake:
    """How much of a site goes with its pseudonyms.

    Raises:
        StorageError: index or quarantine cannot be read.
    """
    with Index(site.index) as index:
        images = len(index.images())
    return AtStake(images, len(Quarantine.of(site).refusals()))


def rotate(folder: Path) -> Rotation:
    """Give a site another pseudonym key, or finish what a rotation that was cut short began.

    Args:
        folder: of the site.

    Raises:
        SettingsError: the site cannot be read.
        InputError: the old key of the rotation before is still kept: confirm that first.
        DataError: `rotate-nameless`, see `client.index_carry`.
        LedgerError: a round is under way, or the ledger is damaged.
        StorageError: an ingestion is running, or the disk refuses; before the point of no return nothing changed.
    """
    site = load_site(folder, rotating=True)
    with ExitStack() as held:
        if site.ledger.exists():  # held so that no round can begin; it is only looked at
            held.enter_context(Ledger(site.ledger, simulated=site.simulated))
        if not (site.secrets / ROTATING).exists():
            with begun(site) as index:
                memory = index.memory()
            prepare(site, memory)
        held.enter_context(alone(site))
        for step in STEPS:
            step(site)
    with Index(site.index) as index:
        stay_out = len({row.spend_key for row in index.patients(withdrawn=True) if row.withdrawn_at})
        kept = "kept" if retired_key(site).exists() else "destroyed"
        return Rotation(stay_out, index.awaited(), kept)


def confirm(site: Site) -> int:
    """Destroy the old key and its look-up table once everything is taken in again.

    Returns:
        how many patients of earlier runs have not come again.

    Raises:
        InputError: there is no old key, or nothing has been taken in since.
        StorageError: a file cannot be removed.
    """
    if not retired_key(site).exists():
        raise InputError("the old key", "there is none", "Nothing to confirm")
    with Index(site.index) as index:
        if not index.images():
            raise InputError(
                "the old key",
                "no image has been taken in since the rotation",
                "Take them in first: ingest, or pacs pull",
            )
        awaited = index.awaited()
    _destroy(site)
    AuditLog(site.audit).append("deid.rotate_key", status="old-key-destroyed", patients=awaited)
    return awaited


def prepare(site: Site, memory: Memory) -> None:
    """Make the new key and the new index beside the old ones, then set the note of no return.

    Args:
        site: with its old key.
        memory: of its index.

    Raises:
        InputError, StorageError: see `rotate`; nothing has changed.
    """
    if retired_key(site).exists():
        raise InputError(
            "the key",
            "the old key of the rotation before is still kept",
            "Destroy it first: consilium-site deid rotate-key --confirm",
        )
    folder = site.data / _PREPARED
    shutil.rmtree(folder, ignore_errors=True)
    with Index(folder / site.index.name) as new:
        new.remember(memory)
    if any(Path(f"{folder / site.index.name}{end}").exists() for end in _DATABASE[1:]):
        raise StorageError("the new index", "it could not be closed", "Repeat the command", code="storage")
    with _private_file(site.secrets / _NEXT) as file:
        file.write(_new_key(site))
    on_disk((folder / site.index.name, folder, site.data, site.secrets), "the new index and key")
    with whole_file(site.secrets / ROTATING) as file:
        file.write(json.dumps({"retired_key": site.deid.retired_key}).encode())
    on_disk((site.secrets,), "the folder of the keys")


def _retire_data(site: Site) -> None:
    """Move everything under the old pseudonyms aside; the new index takes its place last and marks the end."""
    waiting = site.data / _PREPARED / site.index.name
    if not waiting.exists():
        return
    retired = site.data / _RETIRED
    retired.mkdir(exist_ok=True)
    for name in (*_OLD, *(site.index.name + end for end in _DATABASE)):
        if (site.data / name).exists():
            (site.data / name).replace(retired / name)
    waiting.replace(site.index)
    on_disk((site.data, retired), "the data folder")


def _retire_lookup(site: Site) -> None:
    """Set the old look-up table aside, as long as the new key is not in its place."""
    if not (site.secrets / _NEXT).exists():
        return
    table = LookupTable(site)
    if table.settled():
        table.path.replace(retired_path(site))
        on_disk((site.state,), "the state folder")


def _swap_keys(site: Site) -> None:
    """Keep a copy of the old key, then put the new one in its place in one move."""
    if not (site.secrets / _NEXT).exists():
        return
    old = (site.secrets / _KEY).read_bytes()
    with _private_file(retired_key(site)) as file:
        file.write(old)
    on_disk((site.secrets,), "the folder of the keys")
    (site.secrets / _NEXT).replace(site.secrets / _KEY)
    on_disk((site.secrets,), "the folder of the keys")


def _remove_old(site: Site) -> None:
    """Remove what was set aside; and the old key, where the policy keeps it no longer."""
    for name in (_RETIRED, _PREPARED):
        if (site.data / name).exists():
            shutil.rmtree(site.data / name)
    if json.loads((site.secrets / ROTATING).read_bytes())["retired_key"] == "destroy":
        _destroy(site)


def _close(site: Site) -> None:
    """Say it in the audit log, then let the site be used again."""
    kept = "old-key-kept" if retired_key(site).exists() else "old-key-destroyed"
    AuditLog(site.audit).append("deid.rotate_key", status=kept)
    (site.secrets / ROTATING).unlink()
    on_disk((site.secrets,), "the folder of the keys")


def _translated(step: Callable[[Site], None]) -> Callable[[Site], None]:
    def run(site: Site) -> None:
        """The step; what the disk refuses is a StorageError."""
        try:
            step(site)
        except OSError as error:
            raise storage_error(error, "a file of the rotation") from None

    return run


STEPS: Final = tuple(map(_translated, (_retire_data, _retire_lookup, _swap_keys, _remove_old, _close)))
"""What follows the note of no return, in order; each can be repeated."""


def _destroy(site: Site) -> None:
    """Remove the old table, then overwrite and remove the old key, which alone could read it."""
    path = retired_key(site)
    try:
        for end in _DATABASE:
            Path(f"{retired_path(site)}{end}").unlink(missing_ok=True)
        if path.exists():
            with path.open("r+b") as file:
                file.write(bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
    except OSError as error:
        raise storage_error(error, "the old key") from None


@contextmanager
def _private_file(path: Path) -> Iterator[IO[bytes]]:
    """A file written whole that its owner alone may read."""
    with whole_file(path) as file:
        os.fchmod(file.fileno(), 0o600)
        yield file


def _new_key(site: Site) -> bytes:
    """Chance; of a virtual hospital it follows from the key before, so that a simulation can be replayed."""
    if not site.simulated:
        return secrets.token_bytes(KEY_BYTES)
    return hashlib.sha256(b"rotated" + site.pseudonym_key).digest()
