"""An append-only log whose every line holds the digest of the line before.

One JSON object a line: `n` (1-based), `time` (UTC), `event`, `fields`, `previous`, `hash`. The hash
covers everything else in the line, `previous` included, so that an edited, removed or moved line
breaks the chain. A log cut off at its end is a whole chain of its own; only a head that somebody
else kept (`Head`) shows that lines are missing.

Fields obey the rules of `common.logs`: numbers, digests and short words, never free text.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from common.errors import StorageError
from common.logs import REFUSED, allowed
from common.types import Digest

GENESIS: Final = Digest("sha256:" + "0" * 64)
_CHUNK_BYTES: Final = 4096
_TORN_BYTES: Final = 1 << 16
"""More than one call of `append_many` writes: what may be torn at the end."""


@dataclass(frozen=True)
class Head:
    """The end of a log as somebody saw it: how many lines, and the hash of the last one."""

    count: int
    digest: Digest


EMPTY: Final = Head(0, GENESIS)


class AuditLog:
    """The log at `path`; made with its first line. Several processes may append in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, **fields: object) -> Head:
        """Add one line and return the new head once the line is on disk.

        A field that common.logs would not let pass is written as `refused`. A torn last line, left
        by a crash while writing, was never acknowledged to anyone: it is cut off and the cut noted.

        Raises:
            StorageError: when the log cannot be written or its last line is not one of ours.
        """
        return self.append_many([(event, fields)])

    def append_many(self, lines: Iterable[tuple[str, Mapping[str, object]]]) -> Head:
        """Add lines of (event, fields) in one go and return the new head once all are on disk; as `append`.

        After a crash in the middle the first of them may be there and the rest not.

        Raises:
            StorageError: as `append`.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _cut_torn_line(file):
                    _write(file, _last(file, self._path.name), "audit.torn", {})
                head = _last(file, self._path.name)
                for event, fields in lines:
                    safe = {k: v if allowed(k, v) else REFUSED for k, v in fields.items()}
                    head = _write(file, head, event, safe)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            raise StorageError(
                self._path.name, "the audit log cannot be written", "Check free space and rights"
            ) from None
        return head

    def head(self) -> Head:
        """The last line's number and hash; `EMPTY` when there is no log yet."""
        if not self._path.exists():
            return EMPTY
        with self._path.open("rb") as file:
            return _last(file, self._path.name)


def verify(path: Path, known: Head = EMPTY) -> Head:
    """Read the whole chain; with `known`, also that it still holds what was there then.

    Raises:
        StorageError: code `audit-broken` with the first line that does not fit, or
            `audit-truncated` when the log no longer reaches, or no longer contains, `known`.
    """
    head = EMPTY
    for number, line in enumerate(_lines(path), start=1):
        entry = _parse(line)
        if entry is None or entry["n"] != number or entry["previous"] != head.digest:
            raise _broken(path.name, number)
        head = Head(number, Digest(entry["hash"]))
        if number == known.count and head != known:
            raise _truncated(path.name, known)
    if head.count < known.count:
        raise _truncated(path.name, known)
    return head


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Every entry in order, without checking the chain."""
    for line in _lines(path):
        yield json.loads(line)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _write(file: IO[bytes], head: Head, event: str, fields: dict[str, Any]) -> Head:
    entry = {
        "n": head.count + 1,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "fields": fields,
        "previous": head.digest,
    }
    entry["hash"] = _hash(entry)
    file.seek(0, os.SEEK_END)
    file.write(json.dumps(entry, sort_keys=True, allow_nan=False).encode() + b"\n")
    file.flush()
    return Head(head.count + 1, Digest(str(entry["hash"])))


def _hash(entry: dict[str, Any]) -> str:
    rest = {key: value for key, value in entry.items() if key != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, or None when it is not one or its hash is not its own."""
    try:
        entry = json.loads(line)
        good = (
            line.endswith(b"\n")
            and set(entry) == {"n", "time", "event", "fields", "previous", "hash"}
            and entry["hash"] == _hash(entry)
        )
    except (ValueError, TypeError):
        return None
    return entry if good else None


def _last(file: IO[bytes], name: str) -> Head:
    line = _tail(file)
    if not line:
        return EMPTY
    entry = _parse(line)
    if entry is None:
        raise _broken(name, "last")
    return Head(int(entry["n"]), Digest(entry["hash"]))


def _tail(file: IO[bytes]) -> bytes:
    """The last line with its newline, read from the end."""
    end = file.seek(0, os.SEEK_END)
    tail = b""
    while end > 0 and tail.count(b"\n", 0, -1) == 0:
        start = max(0, end - _CHUNK_BYTES)
        file.seek(start)
        tail = file.read(end - start) + tail
        end = start
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _cut_torn_line(file: IO[bytes]) -> bool:
    """Cut off what a crash left unfinished: a line without its end, or one with a hole and what follows it."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _TORN_BYTES)
    file.seek(start)
    window = file.read(end - start)
    # A power failure may keep a line's end and lose its beginning; what was never written reads as zeros.
    hole = window.find(b"\0")
    whole = window if hole < 0 else window[:hole]
    kept = whole.rfind(b"\n") + 1
    if start + kept == end:
        return False
    if kept == 0 and start > 0:
        return False  # no line of ours is so long: not torn, but broken
    file.truncate(start + kept)
    return True


def _broken(name: str, line: int | str) -> StorageError:
    return StorageError(
        name,
        f"line {line} does not follow from the line before",
        "Keep the file as evidence and restore the log from backup",
        code="audit-broken",
    )


def _truncated(name: str, known: Head) -> StorageError:
    return StorageError(
        name,
        f"it no longer holds line {known.count} as it was seen before",
        "Keep the file as evidence and restore the log from backup",
        code="audit-truncated",
    )
