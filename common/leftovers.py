"""What a supervisor that was killed left behind, ended before its successor starts.

Linux ends the programs themselves with their supervisor, and not what they started in turn: nginx's workers would keep
the port, and a successor could never listen there. They are known by their session, which is that of a program in the
last status, and by having begun before that status was written; so nobody who came later is ever meant.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SESSION = 3
_STARTED = 19
"""Places in /proc/<pid>/stat behind the command's name, counted from 0 (proc(5): fields 6 and 22)."""


def end_leftovers(status: Path) -> list[int]:
    """End every process that belongs to a program in this status file.

    Returns:
        The process ids that were ended.
    """
    try:
        programs = json.loads(status.read_text(encoding="utf-8"))["programs"].values()
        sessions = {int(program["pid"]) for program in programs if program["pid"]}
        written = status.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    found = [pid for pid, session, began in _processes() if session in sessions and began < written]
    for pid in found:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return found


def _processes() -> Iterator[tuple[int, int, float]]:
    """Process id, session, and second of the beginning since 1970, of every process."""
    ticks = os.sysconf("SC_CLK_TCK")
    booted = _booted()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            after = path.read_text().rpartition(")")[2].split()
            yield int(path.parent.name), int(after[_SESSION]), booted + int(after[_STARTED]) / ticks


def _booted() -> float:
    with suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return float("inf")
