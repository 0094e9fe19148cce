"""What differential privacy costs here, as ratios to the same step without it: time interleaved, memory apart.

Times are of the whole process, every thread counted, and of the clock; each repetition runs every engine
once, so that a busy moment meets them all. Memory is the highest resident size of a process that does
nothing else, above what it held when network and batch were ready.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from client.benchmarks.dp_steps import STEPS, Case, prepared
from common.errors import StorageError

CASES: Final = (Case("small-cnn", 32, 64), Case("resnet18", 32, 64), Case("densenet121", 32, 64))
REPEATS: Final = 9
_WARM: Final = 2
_MEMORY_STEPS: Final = 3


@dataclass(frozen=True)
class Cost:
    """One engine on one case; ratios are medians over repetitions, to the plain step of the same repetition."""

    network: str
    engine: str
    wall: float | None
    """Ratio of the clock; None where the engine cannot train this network."""
    cpu: float | None
    """Ratio of processor time, all threads."""
    milliseconds: float | None
    """Median of the clock."""
    memory_mib: float | None
    memory: float | None
    """Ratio of peak memory above network and batch."""


def measure(
    cases: Sequence[Case] = CASES,
    engines: Sequence[str] = tuple(STEPS),
    repeats: int = REPEATS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Cost]:
    """Every engine on every case; `plain` is always among them.

    Raises:
        StorageError: a measuring process could not be run.
    """
    names = ["plain", *(name for name in engines if name != "plain")]
    rows: list[Cost] = []
    for number, case in enumerate(cases):
        times = _times(case, names, repeats)
        memory = {name: _memory(case, name) if name in times else None for name in names}
        rows += [_cost(case, name, times, memory) for name in names]
        if progress is not None:
            progress(number + 1, len(cases))
    return rows


def _times(case: Case, names: Sequence[str], repeats: int) -> dict[str, list[tuple[float, float]]]:
    steps = {}
    for name in names:
        try:
            step = prepared(case, name)
            for _ in range(_WARM):
                step()
        except Exception:  # noqa: BLE001, S112 (a peer that cannot train this network is shown as such)
            continue
        steps[name] = step
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            clock, cpu = time.perf_counter(), time.process_time()
            step()
            times[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    return times


def _cost(
    case: Case,
    name: str,
    times: dict[str, list[tuple[float, float]]],
    memory: dict[str, float | None],
) -> Cost:
    if name not in times:
        return Cost(case.network, name, None, None, None, None, None)
    found, plain = np.array(times[name]), np.array(times["plain"])
    wall, cpu = np.median(found / plain, axis=0)
    used, base = memory[name], memory["plain"]
    ratio = used / base if used is not None and base else None
    return Cost(case.network, name, float(wall), float(cpu), float(np.median(found[:, 0])) * 1e3, used, ratio)


def _memory(case: Case, name: str) -> float:
    """MiB above what the process held before its first step."""
    home = str(Path(__file__).resolve().parents[2])
    call = [sys.executable, "-m", "client.benchmarks.dp", case.network, str(case.batch), str(case.side), name]
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(  # noqa: S603 (this very module, with names of our own)
        call,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise StorageError(
            f"the measurement of {name}", "its process failed", "Free memory, or choose a smaller batch"
        )
    return float(json.loads(done.stdout)["mib"])


def _resident() -> int:
    """Bytes in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Print the peak memory of one engine in this process; for `measure`."""
    network, batch, side, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    step = prepared(Case(network, batch, side), name)
    before = _resident()
    for _ in range(_MEMORY_STEPS):
        step()
    # Not getrusage: what it reports begins with the parent's size.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    sys.stdout.write(json.dumps({"mib": max(0, peak - before) / 2**20}) + "\n")


if __name__ == "__main__":
    main()
