"""The memory that a running federation's processes take, looked at from outside while it works."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulations.faults.federation import SERVER, Federation

MIB: Final = 1 << 20
_POLL_S: Final = 0.02
_SUM_S: Final = 5.0


@dataclass(frozen=True)
class Peak:
    """The most memory one process took, MiB."""

    total: float
    """Resident, pages of mapped files among them (VmHWM)."""
    own: float
    """Of it, at the same or another time, what is no file's (RssAnon, looked at every 20 ms)."""


class Watch:
    """Looks at the memory of the server's processes until told to end."""

    def __init__(self, made: Federation) -> None:
        self._made = made
        self._found = {"serverapp": Peak(0.0, 0.0), "superlink": Peak(0.0, 0.0)}
        self._found["everything"] = Peak(0.0, 0.0)
        self._summed_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def peaks(self) -> dict[str, Peak]:
        """The most that was seen of each."""
        return self._found

    def _look(self) -> None:
        pids: dict[str, int | None] = {}
        while not self._ended.wait(_POLL_S):
            self._sum()
            for what in ("serverapp", "superlink"):
                before = self._found[what]
                if pids.get(what) is None:
                    pids[what] = self._made.sides[SERVER].pid(what)
                try:
                    now = memory(pids[what])
                except (OSError, KeyError):
                    pids[what] = None
                    continue
                self._found[what] = Peak(max(before.total, now.total), max(before.own, now.own))

    def _sum(self) -> None:
        """All processes that run this federation's copy of the code, every five seconds: to look is not free."""
        if time.monotonic() - self._summed_s < _SUM_S:
            return
        self._summed_s = time.monotonic()
        mark = f"PYTHONPATH={self._made.environment['PYTHONPATH']}".encode()
        total = sum(_share(folder) for folder in Path("/proc").glob("[0-9]*") if _runs(folder, mark))
        before = self._found["everything"].total
        self._found["everything"] = Peak(max(before, total), 0.0)


def _runs(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes()
    except OSError:
        return False


def _share(process: Path) -> float:
    """Proportional share of memory, MiB; 0 for a process that ended meanwhile."""
    try:
        lines = (process / "smaps_rollup").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def memory(pid: int | None) -> Peak:
    """What a process takes: the most that was ever resident, and what of it now is no file's.

    Raises:
        OSError, KeyError: it is gone.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    said = {key: value for key, _, value in (line.partition(":") for line in lines)}
    total, own = (float(said[key].split()[0]) * 1024 / MIB for key in ("VmHWM", "RssAnon"))
    return Peak(total, own)
