"""One instance on its way into the inbox: a locked file that is gone unless somebody keeps it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path


class Draft:
    """One instance being written; without `Inbox.keep` nothing of it remains."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{secrets.token_hex(12)}.part"
        self._digest = hashlib.sha256()
        self.bytes = 0
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            OSError: the disk refuses.
        """
        view = memoryview(data)
        self._digest.update(view)
        self.bytes += len(view)
        while view:
            view = view[os.write(self._handle, view) :]

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was written."""
        return self._digest.digest()

    def sync(self) -> None:
        """Wait until all of it is on the disk.

        Raises:
            OSError: it cannot be.
        """
        os.fsync(self._handle)

    def discard(self) -> None:
        """Forget it; nothing happens when it was kept or forgotten before."""
        if self._handle >= 0:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.discard()
