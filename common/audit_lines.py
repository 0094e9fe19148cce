"""One line of an audit log: how it is written, read back, and cut off where a crash tore it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Final

from common.errors import StorageError
from common.types import Digest

GENESIS: Final = Digest("sha256:" + "0" * 64)
_CHUNK_BYTES: Final = 4096
_TORN_BYTES: Final = 1 << 16
"""More than one call of `append_many` writes: what may be torn at the end."""
_REMEMBERED: Final = 512
"""Logs of which this process knows how it left them."""


@dataclass(frozen=True)
class Head:
    """The end of a log as somebody saw it: how many lines, and the hash of the last one."""

    count: int
    digest: Digest


EMPTY: Final = Head(0, GENESIS)


def write(file: IO[bytes], head: Head, event: str, fields: dict[str, Any]) -> Head:
    """Put one line after `head` at the end of the file; gives the head it makes."""
    entry = {
        "n": head.count + 1,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "fields": fields,
        "previous": head.digest,
    }
    entry["hash"] = digest_of(entry)
    text, begins = _text(entry), file.seek(0, os.SEEK_END)
    file.write(text)
    file.flush()
    made = Head(head.count + 1, Digest(str(entry["hash"])))
    _remember(file, _Left(begins + len(text), text, made))
    return made


@dataclass(frozen=True)
class _Left:
    """How this process left a log."""

    size: int
    """Bytes."""
    line: bytes
    """Its last."""
    head: Head


_left: Final[OrderedDict[tuple[int, int], _Left]] = OrderedDict()
"""By device and inode."""
_mutex: Final = threading.Lock()


def remembered(file: IO[bytes]) -> Head | None:
    """The head of a log that ends with the very line that this process wrote last; None of any other.

    Such a line is neither torn nor somebody else's, and need not be taken apart again.
    """
    now = os.fstat(file.fileno())
    left = _left.get((now.st_dev, now.st_ino))
    if left is None or left.size != now.st_size:
        return None
    begins = left.size - len(left.line)
    return left.head if os.pread(file.fileno(), len(left.line), begins) == left.line else None


def _remember(file: IO[bytes], left: _Left) -> None:
    now = os.fstat(file.fileno())
    with _mutex:
        _left[now.st_dev, now.st_ino] = left
        _left.move_to_end((now.st_dev, now.st_ino))
        while len(_left) > _REMEMBERED:
            _left.popitem(last=False)


def _text(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, allow_nan=False).encode() + b"\n"


def hashed(entry: dict[str, Any]) -> bytes:
    """The very bytes whose SHA-256 is a line's `hash`: its other keys, sorted, as JSON without blanks, in ASCII."""
    rest = {key: value for key, value in entry.items() if key != "hash"}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(entry: dict[str, Any]) -> str:
    """What a line's `hash` must be."""
    return "sha256:" + hashlib.sha256(hashed(entry)).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, or None when it is not one or its hash is not its own."""
    try:
        entry = json.loads(line)
        good = (
            line == _text(entry)  # a key that stands twice would hide what it said first
            and set(entry) == {"n", "time", "event", "fields", "previous", "hash"}
            and type(entry["n"]) is int
            and isinstance(entry["previous"], str)
            and entry["hash"] == digest_of(entry)
        )
    except (ValueError, TypeError, RecursionError):
        return None
    return entry if good else None


def last(file: IO[bytes], name: str) -> Head:
    """The head that a file's last line makes; `EMPTY` for a file without lines.

    Raises:
        StorageError: code `audit-broken`.
    """
    line = _tail(file)
    if not line:
        return EMPTY
    entry = parse(line)
    if entry is None:
        raise broken(name, "last")
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


def cut_torn_line(file: IO[bytes]) -> bool:
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


def broken(name: str, line: int | str, code: str = "audit-broken") -> StorageError:
    """The error of a log in which this line is wrong."""
    rules = {"audit-schema": f"line {line} holds what no audit log may say"}
    return StorageError(
        name,
        rules.get(code, f"line {line} does not follow from the line before"),
        "Keep the file as evidence and restore the log from backup",
        code=code,
    )
