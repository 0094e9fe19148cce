"""The files of one audit log: the one that is written, and the closed ones before it.

`audit.jsonl`             the newest lines
`audit-000000001.jsonl`   closed; named after the number of its first line; never written again

A file is closed when it is large or old. The chain goes on across files: the first line of each holds the hash of the
last line of the one before. Closed files are forgotten whole, oldest first, and only after a line of the
chain itself says so: a log whose beginning is missing without such a line is not whole.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final

from common.durability import push_folder

PRUNED: Final = "audit.pruned"
"""The event of the line that says up to which line and hash the beginning was forgotten."""
YEARS: Final = 6
"""45 CFR 164.316(b)(2)(i): documentation is kept six years. A hospital may keep it longer."""
_DAYS_PER_YEAR: Final = 366
YEAR_S: Final = 365 * 86_400.0
"""Of what is about a log's lines: it goes a little before they do."""
_FIRST_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Keeping:
    """When a file is closed; flags that change nothing of what is logged."""

    file_bytes: int = 16 << 20
    file_days: int = 31


def parts(path: Path) -> list[Path]:
    """Every file of the log at `path`, oldest first; empty when there is none."""
    closed = sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 9}{path.suffix}"))
    return [*closed, path] if path.exists() else closed


def due(file: IO[bytes], keeping: Keeping, now: datetime) -> bool:
    """Whether the file that is written should be closed."""
    if file.seek(0, os.SEEK_END) >= keeping.file_bytes:
        return True
    began = _time(_first(file))
    return began is not None and now - began > timedelta(days=keeping.file_days)


def close(path: Path) -> None:
    """Give the file at `path` its name for good; whoever holds its lock has it to themselves."""
    with path.open("rb") as file:
        number = int(json.loads(_first(file))["n"])
    path.rename(path.with_name(f"{path.stem}-{number:09d}{path.suffix}"))
    push_folder(path.parent)


def old(path: Path, years: int, now: datetime) -> list[Path]:
    """The closed files at the beginning whose newest line is older than that; the newest of all is never among them."""
    found: list[Path] = []
    before = now - timedelta(days=years * _DAYS_PER_YEAR)
    for part in parts(path)[:-1]:
        written = _time(part.read_bytes().splitlines()[-1])
        if written is None or written >= before:
            break
        found.append(part)
    return found


def forget(files: list[Path]) -> None:
    """Delete closed files, oldest first, so that a crash leaves no hole."""
    for file in files:
        file.unlink()
        push_folder(file.parent)


def _first(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_FIRST_BYTES).partition(b"\n")[0]


def _time(line: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(json.loads(line)["time"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return None
