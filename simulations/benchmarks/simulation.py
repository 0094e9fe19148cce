"""`consilium-sim bench simulation`: the same task by this project and by others, start-up and rounds apart.

Every contender is a process of its own (`simulations.benchmarks.simulators`). They take turns, so that what else the machine does
meets them all; ratios are to the bare loop of the same turn. Peers run in environments of their own, made below the cache with
pip and with this installation's torch behind them, so that all compute with the same library; who cannot be had is named, and why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from rich.table import Table

import simulations
from client.files import storage_error
from common.cli import grid
from common.errors import FederationError
from simulations.benchmarks.planted import images_of, plant
from simulations.benchmarks.race_record import OURS_NAME, ROUND_LIMIT, Race, Timed
from simulations.benchmarks.simulators.common_task import BEGUN, Measured, end_family

MEMORY_SITES: Final = (10, 100, 1000)
_MODULES: Final = "simulations.benchmarks.simulators"
_TASK: Final = "task.npz"
_LONGEST_S: Final = 300.0
"""Of one turn of one contender; who takes longer is ended with all it started, and named."""
_PIP_S: Final = 600.0


@dataclass(frozen=True)
class Contender:
    """One tool."""

    name: str
    module: str
    words: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Of a peer, installed without what they depend on: that is here, or in the list."""
    rounds: int = 0
    """Of one that takes minutes: how many it runs, in the first turn only; 0: as many as the race has."""
    sites: int = 0
    """Of one that takes minutes for those who have nothing to do: as many as train in a round; 0: all."""


BARE: Final = Contender("bare loop, 1 thread", "bare")
OURS: Final = Contender(OURS_NAME, "ours", (str(len(os.sched_getaffinity(0))),))
CONTENDERS: Final = (
    BARE,
    OURS,
    Contender("consilium, 1 process", "ours", ("0",)),
    Contender("consilium on Flower/Ray", "flower_ray", rounds=4),
    Contender("pfl-research", "pfl_research", packages=("pfl", "multiprocess", "dill", "prv-accountant")),
    Contender(
        "fluke",
        "fluke_fl",
        packages=(
            *("fluke-fl", "torchmetrics", "lightning-utilities", "diskcache", "cerberus", "omegaconf"),
            *("wandb", "seaborn", "hydra-core"),
        ),
    ),
    Contender(
        "NVFlare's simulator",
        "nvflare_sim",
        packages=("nvflare", "pyhocon", "pyjwt", "docker", "Flask-JWT-Extended"),
        rounds=2,
        sites=10,
    ),
)


def race(
    cache: Path,
    turns: int,
    names: Sequence[str] = (),
    growing: Sequence[int] = MEMORY_SITES,
    told: Callable[[str], None] = lambda _line: None,
    *,
    sites: int = 100,
    rounds: int = 10,
) -> Race:
    """Time the contenders.

    Args:
        cache: receives prepared hospitals and the peers' environments, and keeps them.
        turns: of all contenders.
        names: beginnings of the contenders' names; all when empty. The bare loop always runs.
        growing: numbers of hospitals at which this project's memory and start-up are measured, too.
        told: given a line for every contender and turn.
        sites: hospitals of the race.
        rounds: of it.

    Raises:
        FederationError: code `bench`: the bare loop or this project itself does not run.
    """
    chosen = min(10, sites)
    folder = _prepared(cache / f"planted-{sites}", sites, max(sites, *growing, 1))
    wanted = [c for c in CONTENDERS if c is BARE or not names or any(c.name.startswith(n) for n in names)]
    found = {
        contender.name: Timed(contender.name, rounds=contender.rounds, sites=contender.sites)
        for contender in wanted
    }
    pythons = {contender.name: _python(contender, cache, found[contender.name]) for contender in wanted}
    for turn in range(1, turns + 1):
        for contender in wanted:
            timed = found[contender.name]
            if not timed.absent and (turn == 1 or not contender.rounds):
                job = (folder, contender.sites or sites, contender.rounds or rounds, chosen)
                _take_turn(contender, pythons[contender.name], job, timed)
                told(f"turn {turn} of {turns}: {contender.name}: {timed.absent or _line(timed)}")
    grown = []
    for count in growing:
        timed = Timed(OURS.name)
        _take_turn(OURS, sys.executable, (folder, count, 3, min(chosen, count)), timed)
        grown.append((count, timed.turns[0]))
        told(f"{count} hospitals: {_line(timed)}, {timed.memory_mib:.0f} MiB")
    return Race(sites, rounds, chosen, len(os.sched_getaffinity(0)), tuple(found.values()), tuple(grown))


def _prepared(folder: Path, sites: int, most: int) -> Path:
    plant(folder, most)
    path = folder / _TASK
    if not path.is_file():
        made = [images_of(number) for number in range(1, sites + 1)]
        try:
            np.savez(path, images=np.stack([i for i, _ in made]), labels=np.stack([t for _, t in made]))
        except OSError as error:
            raise storage_error(error, "the task") from None
    return folder


def _python(contender: Contender, cache: Path, timed: Timed) -> str:
    """The interpreter of a contender; of a peer its environment is made first, or it is absent."""
    if timed.absent or not contender.packages:
        return sys.executable
    home = cache / "peers" / contender.module
    python = home / "bin" / "python"
    if (home / "whole").is_file():
        return str(python)
    try:
        venv.create(home, with_pip=True, clear=True)
        (site,) = home.glob("lib/python*/site-packages")
        own = Path(np.__file__).resolve().parents[1]
        (site / "behind.pth").write_text(f"{own}\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *contender.packages]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PIP_S)  # noqa: S603 - fixed words
        (home / "whole").touch()
    except subprocess.CalledProcessError as error:
        timed.absent = (
            f"pip cannot install it: {(error.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        timed.absent = f"its environment cannot be made: {type(error).__name__}"
    return str(python)


def _take_turn(contender: Contender, python: str, job: tuple[Path, int, int, int], timed: Timed) -> None:
    own = contender.module in ("bare", "ours")
    with tempfile.TemporaryDirectory() as out:
        words = [python, "-m", f"{_MODULES}.{contender.module}", *map(str, job), out, *contender.words]
        root = str(Path(simulations.__file__).resolve().parents[1])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, BEGUN: repr(time.time())}
        try:
            said: dict[str, Any] = json.loads(_spoken(words, out, environment).strip().splitlines()[-1])
            timed.turns.append(Measured(**said))
        except subprocess.CalledProcessError as error:
            timed.absent = (
                f"it does not run: {(error.stderr.strip().splitlines() or ['no reason given'])[-1]}"
            )
        except (OSError, ValueError, IndexError, TypeError, subprocess.SubprocessError) as error:
            timed.absent = f"it says nothing of its rounds: {type(error).__name__}"
    if own and timed.absent:
        raise FederationError(contender.name, timed.absent, "Read what it said", code="bench")


def _spoken(words: list[str], folder: str, environment: dict[str, str]) -> str:
    """What a process prints; nothing that it started in its session outlives this.

    Raises:
        CalledProcessError: it ended with an error.
        TimeoutExpired: it took too long.
    """
    with subprocess.Popen(  # noqa: S603 - fixed words
        words,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate(timeout=_LONGEST_S)
        finally:
            end_family(process.pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words, said, complained)
    return said


def _line(timed: Timed) -> str:
    last = timed.turns[-1]
    cpu = f", {last.cpu_s:.3f} s of processor" if last.cpu_s else ""
    return f"start-up {last.startup_s:.1f} s, median round {median(last.rounds_s):.3f} s{cpu}"


def race_table(found: Race) -> Table:
    """A line for every contender."""
    head = (
        "contender",
        "start-up, s",
        "round, s",
        "best",
        "÷ bare loop",
        "processor, s",
        "÷ bare loop",
        "MiB",
    )
    bare = found.contenders[0]
    lines = []
    for one in found.contenders:
        if one.absent or not one.turns:
            lines.append((one.label, one.absent or "not timed", *[""] * 6))
            continue
        seconds = (f"{one.startup_s:.1f}", f"{one.round_s:.3f}", f"{one.best_s:.3f}")
        seen = one.cpu_s > 0  # not of processes that another one started for it
        cpu = (f"{one.cpu_s:.3f}", f"{one.cpu_s / bare.cpu_s:.2f}") if seen else ("", "")
        memory = f"{one.memory_mib:.0f}" if seen else ""
        lines.append((one.label, *seconds, f"{found.ratio(one):.2f}", *cpu, memory))
    title = f"{found.sites} hospitals, {found.chosen} a round, {found.cores} cores; at most {ROUND_LIMIT} of the bare loop"
    return grid(title, head, lines)
