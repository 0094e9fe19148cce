"""The task that every tool carries out, and what is told of it.

A hundred hospitals of 64 images of 32 by 32, a network of 47,000 weights, ten hospitals a round, one epoch of SGD in batches of
16 each, the mean of their weights. The network is the plan's `small-cnn`, written out, so that peers need none of our code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH: Final = 16
RATE: Final = 0.05
SEED: Final = 1
BEGUN: Final = "CONSILIUM_BENCH_BEGUN"
"""When the process was started, by the clock of the starter: importing is part of starting up."""
_TICKS: Final = 100
_KIB: Final = 1024


@dataclass(frozen=True)
class Job:
    """What is asked of a tool."""

    folder: Path
    """Of the data: `task.npz` with `images` [sites, 64, 32, 32] and `labels` [sites, 64]."""
    sites: int
    rounds: int
    chosen: int
    out: Path
    """An empty folder."""

    @classmethod
    def told(cls) -> Job:
        """From the words of this process's command line."""
        folder, sites, rounds, chosen, out = sys.argv[1:]
        return cls(Path(folder), int(sites), int(rounds), int(chosen), Path(out))


@dataclass
class Measured:
    """What one tool took."""

    startup_s: float = 0.0
    """From the start of the process to the start of its first round."""
    rounds_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    """Processor time of all processes in an average round."""
    memory_mib: float = 0.0
    """The most that all processes took together at the end of a round; what several share is shared out (PSS)."""


class Watch:
    """Called at the start of the first round and at the end of each."""

    def __init__(self) -> None:
        self.found = Measured()
        self._last = 0.0
        self._cpu = 0.0
        self._looking_s = 0.0
        """Processor time."""

    def started(self) -> None:
        """The first round begins now."""
        self.found.startup_s = time.time() - float(os.environ[BEGUN])
        self._cpu, self._last = cpu_s(), time.perf_counter()

    def ended(self) -> None:
        """A round has ended; what it takes to look is no part of any round."""
        now, looked = time.perf_counter(), time.process_time()
        self.found.rounds_s.append(now - self._last)
        self.found.cpu_s = (cpu_s() - self._cpu - self._looking_s) / len(self.found.rounds_s)
        self.found.memory_mib = max(self.found.memory_mib, memory_mib())
        self._last = time.perf_counter()
        self._looking_s += time.process_time() - looked

    def tell(self) -> None:
        """Print what was measured."""
        sys.stdout.write("\n" + json.dumps(asdict(self.found)) + "\n")
        sys.stdout.flush()


def network() -> nn.Module:
    """`small-cnn` with 16 channels: 46,609 weights."""
    from torch import nn  # noqa: PLC0415 - the starter needs none

    layers: list[nn.Module] = []
    wide = 1
    for out in (16, 32, 48, 64):
        layers += [
            nn.Conv2d(wide, out, 3, padding=1, bias=False),
            nn.GroupNorm(4, out),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        wide = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, 1))


def data(job: Job) -> tuple[list[Tensor], list[Tensor]]:
    """Images [64, 1, 32, 32] and labels [64, 1] of every hospital, float32."""
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415 - as above

    with np.load(job.folder / "task.npz") as file:
        images, labels = file["images"][: job.sites], file["labels"][: job.sites]
    pixels = torch.from_numpy(images.astype(np.float32)).unsqueeze(2)
    return list(pixels), list(torch.from_numpy(labels.astype(np.float32)).unsqueeze(2))


def loss() -> Callable[[Any, Any], Any]:
    """Of logits and labels; the mean over a batch."""
    from torch import nn  # noqa: PLC0415 - as above

    return nn.BCEWithLogitsLoss()


def cpu_s() -> float:
    """Processor time that this process and all it started have taken so far."""
    total = 0
    for stat in _family():
        fields = stat.rpartition(")")[2].split()
        total += sum(
            int(field) for field in fields[11:15]
        )  # its own, and that of its children that have ended
    return total / _TICKS


def memory_mib() -> float:
    """Proportional share of memory of this process and all it started."""
    total = 0
    for stat in _family():
        try:
            lines = (
                Path(f"/proc/{stat.partition(' ')[0]}/smaps_rollup")
                .read_text("ascii", "replace")
                .splitlines()
            )
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / _KIB


def end_family(root: int) -> None:
    """Kill every process that descends from `root`, whatever session it made itself; not `root`."""
    for stat in _family(root):
        pid = int(stat.partition(" ")[0])
        if pid != root:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _family(root: int | None = None) -> list[str]:
    """`/proc/<pid>/stat` of a process, this one by default, and of those that descend from it."""
    stats: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stats[int(folder.name)] = (folder / "stat").read_text("ascii", "replace")
        except OSError:
            continue
    parents = {pid: int(stat.rpartition(")")[2].split()[1]) for pid, stat in stats.items()}
    family = {root or os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return [stats[pid] for pid in sorted(family) if pid in stats]
        family |= more
