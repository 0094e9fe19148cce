"""How many hospitals one machine carries, or how large a model: real processes, with their memory.

`consilium-sim bench scale --sites 50 --values 10000 --rounds 5`: a consortium as it runs in the world, and hospitals whose
processes are forked from a warm one (`simulations.benchmarks.crowd`). What a machine lacks is said by name, before it has
none left: other work on it goes on.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.table import Table

from client.reentry import MEMORY
from common.checkpoints import write_whole
from common.cli import grid
from common.errors import FederationError, InputError, StorageError
from simulations.benchmarks import crowd
from simulations.benchmarks.deployed import BYTES, bench_plan, measured
from simulations.benchmarks.watch import MIB, Peak
from simulations.faults.federation import Federation, federation, start_side

LEFT_MIB: Final = 2048.0
"""Memory that others on this machine keep in any case."""
MARKS: Final = ("<!-- measured: scale {} x {} -->", "<!-- end of measured -->")
CROWD: Final = "hospitals"
_START_S: Final = 600.0
_HEADS: Final = (
    "sites",
    "numbers",
    "rounds",
    "until all are there, s",
    "a round, s",
    "ServerApp, MiB",
    "SuperLink, MiB",
    "all processes, MiB",
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Scale:
    """What a whole federation on one machine took."""

    sites: int
    values: int
    start_s: float
    """Until every SuperNode was there."""
    rounds: tuple[float, ...]
    """Seconds of each, from the end of the one before to its own."""
    serverapp: Peak
    superlink: Peak
    everything: float
    """The most that all processes took together, MiB (PSS)."""


def scaled(sites: int, values: int, rounds: int, say: Say = lambda _word: None) -> Scale:
    """Carry out a study of so many toy hospitals on this machine.

    Args:
        sites: hospitals.
        values: numbers of the model.
        rounds: of training.
        say: told of each step.

    Raises:
        StorageError: code `memory` when the machine has too little left to begin, or to go on.
        FederationError: `timeout` when it does not end, `bench` when it does not end well, or a hospital's process ended.
    """
    spare()
    names = dict.fromkeys(crowd.names(sites), crowd.PATIENTS)
    with tempfile.TemporaryDirectory() as place, federation(Path(place) / "federation", {}) as made:
        began = time.monotonic()
        _start(made, sites)
        folder = made.folder / CROWD

        def well() -> None:
            spare()
            _whole(folder)

        def there() -> bool:
            well()
            # A SuperNode that was let in writes its number down.
            return sum(1 for _ in folder.glob(f"*/state/{MEMORY}")) >= sites

        made.until(there, f"{sites} SuperNodes", _START_S)
        start_s = time.monotonic() - began
        say(f"{sites} SuperNodes are there after {start_s:.0f} s; {available():,.0f} MiB of memory are left")
        peaks, seconds = measured(made, bench_plan(names, rounds, "scale"), values, well)
    return Scale(
        sites, values, start_s, seconds, peaks["serverapp"], peaks["superlink"], peaks["everything"].total
    )


def _start(made: Federation, sites: int) -> None:
    folder = made.folder / CROWD
    folder.mkdir()
    address = f"127.0.0.1:{made.consortium.settings.superlink.port}"
    start_side(made, CROWD, crowd.command(folder, address, sites), folder)


def _whole(folder: Path) -> None:
    if what := crowd.lost(folder):
        raise FederationError("hospitals", what, "Read its log", code="bench")


def available() -> float:
    """Memory that this machine can still give, MiB."""
    told = re.search(
        r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE
    )
    return float(told.group(1)) * 1024 / MIB if told else float("inf")


def spare(left: float | None = None, least: float = LEFT_MIB) -> None:
    """See to it that others have memory left.

    Args:
        left: MiB that can still be had; None: of this machine, now.
        least: MiB that must be left.

    Raises:
        StorageError: code `memory`.
    """
    left = available() if left is None else left
    if left < least:
        raise StorageError(
            "memory",
            f"{left:,.0f} MiB are left on this machine, and {least:,.0f} are for others",
            "Take fewer hospitals, a smaller model or a larger machine",
            code="memory",
        )


def scale_table(found: Scale) -> Table:
    """What it took, for a terminal."""
    return grid("A federation on one machine", _HEADS, [_line(found)])


def _line(found: Scale) -> tuple[str, ...]:
    return (
        *(str(found.sites), f"{found.values:,}", str(len(found.rounds)), f"{found.start_s:.0f}"),
        *(f"{median(found.rounds):.1f}", f"{found.serverapp.total:.0f}", f"{found.superlink.total:.0f}"),
        f"{found.everything:,.0f}",
    )


def put(found: Scale, path: Path) -> None:
    """Write the line between its marks in a page, with the date and the machine.

    Raises:
        InputError: the page has no such marks.
    """
    begin, end = MARKS[0].format(found.sites, found.values), MARKS[1]
    text = path.read_text(encoding="utf-8")
    before, mark, rest = text.partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise InputError(path.name, "it has no place for this table", f"Put {begin} and {end} into it")
    rows = (_HEADS, ("---",) * len(_HEADS), _line(found))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    model = f"One model is {BYTES * found.values / MIB:,.1f} MiB."
    write_whole(path, f"{before}{begin}\n{table}\n\n{model}\n{end}{after}".encode())
