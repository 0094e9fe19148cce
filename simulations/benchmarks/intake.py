"""How long intake takes for a CT slice, beside two tools that only rewrite headers, in one run.

Each repetition starts every contender twice in a process of its own, pinned to one core (the pair of workers to
two): on a few files and on many. What a file costs is the difference divided by the files between, so that
starting Python, importing and opening an index are in neither. Repetitions are interleaved, and what is quoted is the
median of ratios within a repetition, because a shared machine is faster in one minute than in the next.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from common.cli import grid
from common.errors import InputError
from simulations.benchmarks.slices import write_slices

PEER: Final = "dicognito"
ALONE: Final = ("consilium", PEER, "dicom-anonymizer")
PAIR: Final = "consilium-two"
TEXT: Final = "consilium-text"
FEW: Final = 4
"""Files of the short run; two for each of two workers."""
_LABELS: Final = {
    "consilium": "consilium, one worker",
    PAIR: "consilium, two workers",
    TEXT: "consilium, one worker, text searched",
}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """One contender; times per file in milliseconds, medians over the repetitions."""

    name: str
    cores: int
    cpu_ms: float
    """User and system, of all its processes."""
    wall_ms: float
    start_s: float
    """CPU seconds of the short run: what it costs before the first file, and its few files."""
    cpu_ratio: float
    """Median over the repetitions of its CPU time per file by the peer's."""
    wall_ratio: float

    @property
    def files_per_s(self) -> float:
        """Files a second by the clock."""
        return 1000 / self.wall_ms


@dataclass(frozen=True)
class IntakeSpeed:
    """All contenders of one run, and on what they were timed."""

    files: int
    repeats: int
    cores: int
    """Of the machine, that this process may use."""
    measured: tuple[Measured, ...]
    throughput_of_two: float | None
    """Files a second of two workers on two cores by those of the peer on one; None where there is one core."""
    scaling: float | None
    """The same by those of one worker on one core."""

    def table(self) -> Table:
        """What people read."""
        rows = [
            (
                _LABELS.get(one.name, one.name),
                one.cores,
                f"{one.cpu_ms:.2f}",
                f"{one.wall_ms:.2f}",
                f"{one.files_per_s:.0f}",
                f"{one.cpu_ratio:.2f}",
                f"{one.wall_ratio:.2f}",
                f"{one.start_s:.2f}",
            )
            for one in self.measured
        ]
        title = f"{self.files} CT slices of 512 x 512, {self.repeats} repetitions"
        if self.throughput_of_two is not None and self.scaling is not None:
            title += (
                f"; two workers: {self.throughput_of_two:.2f} times the files a second of {PEER},"
                f" {self.scaling:.2f} times those of one worker"
            )
        heads = (
            "contender",
            "cores",
            "CPU ms",
            "wall ms",
            "files/s",
            "CPU ratio",
            "wall ratio",
            "start CPU s",
        )
        return grid(title, heads, rows)


@dataclass(frozen=True)
class _Run:
    """One repetition of one contender."""

    cpu_s: float
    wall_s: float
    start_s: float


def intake_speed(files: int, repeats: int, *, text: bool, progress: Progress | None = None) -> IntakeSpeed:
    """Time intake and its peers on the same files.

    Args:
        files: of the long run.
        repeats: repetitions of all contenders.
        text: whether to time the search for text too; it is slower by far.
        progress: called with runs done and runs in all.

    Raises:
        InputError: a contender is not installed or fails.
    """
    cores = sorted(os.sched_getaffinity(0))
    names = [*ALONE, *([PAIR] if len(cores) > 1 else []), *([TEXT] if text else [])]
    runs: dict[str, list[_Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as scratch:
        base = Path(scratch)
        few, many = (base / kind for kind in ("few", "many"))
        write_slices(few, FEW, seed=2)
        write_slices(many, files, seed=1)
        for turn in range(repeats):
            for place, name in enumerate(names):
                runs[name].append(_timed(name, cores[: 2 if name == PAIR else 1], few, many))
                if progress is not None:
                    progress(turn * len(names) + place + 1, repeats * len(names))
    return _summary(files, repeats, len(cores), runs)


def _timed(name: str, cores: Sequence[int], few: Path, many: Path) -> _Run:
    short, long = (_once(name, cores, source) for source in (few, many))
    between = len(list(many.iterdir())) - FEW
    cpu, wall = ((long[kind] - short[kind]) / between for kind in ("cpu_s", "wall_s"))
    return _Run(cpu, wall, short["cpu_s"])


def _once(name: str, cores: Sequence[int], source: Path) -> dict[str, float]:
    target = source.parent / "out"
    target.mkdir()
    wanted = [sys.executable, "-m", "simulations.benchmarks.contenders", name, str(source), str(target)]
    done = subprocess.run(  # noqa: S603 (this very interpreter, and words of ours)
        [*wanted, ",".join(map(str, cores))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    shutil.rmtree(target)
    if done.returncode:
        raise InputError(
            name,
            "it did not finish",
            "Install the extra `peers`, then try it alone: python -m simulations.benchmarks.contenders",
            code="bench-contender",
        )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _summary(files: int, repeats: int, cores: int, runs: dict[str, list[_Run]]) -> IntakeSpeed:
    def ratio(name: str, other: str, kind: str) -> float:
        """Median of the ratios within each repetition."""
        pairs = zip(runs[name], runs[other], strict=True)
        return statistics.median([float(getattr(one, kind) / getattr(two, kind)) for one, two in pairs])

    def median(name: str, kind: str) -> float:
        """Over the repetitions."""
        return statistics.median([float(getattr(one, kind)) for one in runs[name]])

    measured = tuple(
        Measured(
            name,
            2 if name == PAIR else 1,
            1000 * median(name, "cpu_s"),
            1000 * median(name, "wall_s"),
            median(name, "start_s"),
            ratio(name, PEER, "cpu_s"),
            ratio(name, PEER, "wall_s"),
        )
        for name in runs
    )
    pair = PAIR in runs
    return IntakeSpeed(
        files,
        repeats,
        cores,
        measured,
        ratio(PEER, PAIR, "wall_s") if pair else None,
        ratio("consilium", PAIR, "wall_s") if pair else None,
    )
