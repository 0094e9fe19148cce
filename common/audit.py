"""An append-only log whose every line holds the digest of the line before.

One JSON object a line: `n` (1-based), `time` (UTC), `event`, `fields`, `previous`, `hash`. The hash
covers everything else in the line, `previous` included, so that an edited, removed or moved line
breaks the chain. A log cut off at its end is a whole chain of its own; only a head that somebody
else kept (`Head`) shows that lines are missing.

Events and fields obey the rules of `common.logs`: numbers, digests and short words, never free text; what does not is
written as `refused`, and a log in which it stands all the same is not one of ours. A log is closed into files
and goes on across them (`common.audit_files`).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from common import audit_files
from common.audit_files import PRUNED, YEARS, Keeping, parts
from common.audit_lines import EMPTY, Head, broken, cut_torn_line, last, parse, remembered, write
from common.durability import push
from common.errors import StorageError
from common.logs import EVENT, REFUSED, allowed
from common.types import Digest

__all__ = ["ANYWHERE", "EMPTY", "AuditLog", "Head", "Keeping", "parts", "read", "this_user", "verify"]

_FIELD: Final = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
ANYWHERE: Final = -1
"""Instead of a known head's count, where only its hash was told."""
_KEEPING: Final = Keeping()


def this_user() -> str:
    """Who runs this process, as this machine counts its users; for the field `user` of a line."""
    return f"uid-{os.getuid()}"


class AuditLog:
    """The log at `path`; made with its first line. Several processes may append in turn.

    `keeping` says when a file is closed and the next one begun; None: never, for a log that ends by itself.
    """

    def __init__(self, path: Path, keeping: Keeping | None = _KEEPING) -> None:
        self._path = path
        self._keeping = keeping

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
            with _held(self._path) as file:
                head = self._appended(file, lines)
                file.flush()
                push(file.fileno())
                if self._keeping and audit_files.due(file, self._keeping, datetime.now(UTC)):
                    audit_files.close(self._path)
        except OSError:
            raise _unwritable(self._path.name) from None
        return head

    def forget(self, years: int = YEARS, now: datetime | None = None) -> int:
        """Delete closed files whose newest line is older than that, once a line of the log says so.

        Returns:
            How many files went.

        Raises:
            StorageError: the log cannot be written, or is not whole; then nothing goes.
        """
        gone = audit_files.old(self._path, years, now or datetime.now(UTC))
        if gone:
            verify(self._path)
            with gone[-1].open("rb") as file:
                end = last(file, self._path.name)
            self.append(PRUNED, count=end.count, digest=end.digest)
            try:
                audit_files.forget(gone)
            except OSError:
                raise _unwritable(self._path.name) from None
        return len(gone)

    def head(self) -> Head:
        """The last line's number and hash; `EMPTY` when there is no log yet."""
        return _newest(self._path)

    def _appended(self, file: IO[bytes], lines: Iterable[tuple[str, Mapping[str, object]]]) -> Head:
        head = remembered(file) or self._read_end(file)
        for event, fields in lines:
            name = event if EVENT.fullmatch(event) else REFUSED
            head = write(
                file, head, name, {_name(k): v if allowed(k, v) else REFUSED for k, v in fields.items()}
            )
        return head

    def _read_end(self, file: IO[bytes]) -> Head:
        """The end of the log as it lies on the disk; what a crash left unfinished there is cut off and noted."""
        torn = cut_torn_line(file)
        head = last(file, self._path.name)
        if head == EMPTY:
            head = _newest(self._path)
        return write(file, head, "audit.torn", {}) if torn else head


def verify(path: Path, *known: Head) -> Head:
    """Read the whole chain, across its files; that each line keeps to the schema, and that `known` heads are in it.

    A known head of a line that was forgotten (`AuditLog.forget`) says nothing any more; one whose count is `ANYWHERE`
    must be the hash of some line.

    Raises:
        StorageError: code `audit-broken` with the first line that does not fit, `audit-schema` with the first that
            holds what no log may say, `audit-truncated` when the log no longer reaches a known head or its beginning
            is missing, `audit-rewritten` when another line stands where a known head was.
    """
    kept = _Kept(path.name, known)
    start = head = EMPTY
    pruned: set[Head] = set()
    for line in _lines(path):
        number, entry = head.count + 1, parse(line)
        if entry is not None and head == EMPTY:
            number = entry["n"]
            start = head = Head(number - 1, Digest(entry["previous"]))
        if entry is None or entry["n"] != number or entry["previous"] != head.digest:
            raise broken(path.name, number)
        if not _keeps_to_schema(entry):
            raise broken(path.name, number, "audit-schema")
        head = Head(number, Digest(entry["hash"]))
        kept.meet(head)
        if entry["event"] == PRUNED and entry["fields"].keys() >= {"count", "digest"}:
            pruned.add(Head(entry["fields"]["count"], Digest(entry["fields"]["digest"])))
    if start != EMPTY and start not in pruned:
        raise _truncated(path.name, f"its first {start.count} lines are missing, and no line says why")
    kept.end(head)
    return head


class _Kept:
    """The heads that somebody kept, held against the chain as it is read."""

    def __init__(self, name: str, known: Sequence[Head]) -> None:
        self._name = name
        self._anywhere = {one.digest for one in known if one.count == ANYWHERE}
        self._at = {one for one in known if one.count != ANYWHERE}
        self._numbers = {one.count for one in self._at}

    def meet(self, head: Head) -> None:
        """One line of the chain."""
        self._anywhere.discard(head.digest)
        if head.count in self._numbers and {one for one in self._at if one.count == head.count} != {head}:
            rule = f"another line stands where line {head.count} was seen before"
            raise _truncated(self._name, rule, "audit-rewritten")

    def end(self, head: Head) -> None:
        """The chain's end."""
        if max(self._numbers, default=0) > head.count:
            rule = f"it no longer holds line {max(self._numbers)} as it was seen before"
            raise _truncated(self._name, rule)
        if self._anywhere:
            raise _truncated(self._name, "no line of it has a hash that was seen before", "audit-rewritten")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Every entry in order, across the files, without checking the chain."""
    for line in _lines(path):
        yield json.loads(line)


def _lines(path: Path) -> Iterator[bytes]:
    for part in parts(path):
        try:
            with part.open("rb") as file:
                yield from file
        except FileNotFoundError:
            continue


@contextmanager
def _held(path: Path) -> Iterator[IO[bytes]]:
    """The file at `path`, locked, and still the one at that path: another process may have closed it meanwhile."""
    while True:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield file
                return


def _newest(path: Path) -> Head:
    """The end of the newest file that has a line."""
    for part in reversed(parts(path)):
        with part.open("rb") as file:
            head = last(file, part.name)
        if head != EMPTY:
            return head
    return EMPTY


def _name(field: str) -> str:
    return field if _FIELD.fullmatch(field) else REFUSED


def _keeps_to_schema(entry: dict[str, Any]) -> bool:
    """Whether a line says only what `append` lets it say: an event, and typed fields or the word that they were refused."""
    fields = entry["fields"]
    if not isinstance(fields, dict) or not EVENT.fullmatch(str(entry["event"])):
        return False
    return all(
        _FIELD.fullmatch(key) and (value == REFUSED or allowed(key, value)) for key, value in fields.items()
    )


def _truncated(name: str, rule: str, code: str = "audit-truncated") -> StorageError:
    return StorageError(name, rule, "Keep the file as evidence and restore the log from backup", code=code)


def _unwritable(name: str) -> StorageError:
    return StorageError(name, "the audit log cannot be written", "Check free space and rights")
