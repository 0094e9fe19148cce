"""A study through real processes on loopback: what memory its server takes, and what a round takes beyond computing.

The consortium and every hospital run as they do in the world (`simulations.faults.federation`), with toy hospitals
whose training takes next to nothing. The model has as many numbers as asked for: the study goes on from a checkpoint of
zero rounds that lies there before it begins, so no network of that size is built. A first study with a tiny model tells
what a ServerApp takes that does all the same with nothing in its hands: that is `idle`.
"""

from __future__ import annotations

import itertools
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.table import Table

from common.checkpoints import Checkpoint, save
from common.cli import grid
from common.code import code_digest
from common.errors import FederationError
from common.messages import Instruction, Kind
from common.plan import Plan, dump_plan, replace
from common.types import Digest, RunId, SiteName
from server.journal import COMPLETED, RUNNING, read_federation
from server.records import FederationRecord
from simulations.benchmarks.watch import MIB, Peak, Watch
from simulations.faults.federation import Federation, federation
from simulations.faults.toy import ToyDuties, toy_plan

MODELS_LIMIT: Final = 3.0
"""fp32 models that a ServerApp may take above idle."""
OVERHEAD_LIMIT_S: Final = 4.0
_TENSOR: Final = 1 << 22
_TINY: Final = 1000
_PATIENCE_S: Final = 1500.0
BYTES: Final = 4
"""Of a number of an fp32 model."""


@dataclass(frozen=True)
class Study:
    """What one study came to."""

    sites: int
    values: int
    rounds: tuple[float, ...]
    """Seconds of each, from the end of the one before to its own, with model and record on disk."""
    computing_s: float
    """Of one hospital's training, measured alone."""
    serverapp: Peak
    superlink: Peak
    idle: Peak
    """Of a ServerApp with a tiny model and as many sites."""
    everything: float
    """The most that all processes took together, MiB: pages that several share are shared out among them (PSS)."""

    @property
    def models(self) -> float:
        """fp32 models above idle, resident."""
        return (self.serverapp.total - self.idle.total) * MIB / (BYTES * self.values)

    @property
    def own_models(self) -> float:
        """The same without pages of files."""
        return (self.serverapp.own - self.idle.own) * MIB / (BYTES * self.values)

    @property
    def overhead_s(self) -> float:
        """The median round without computing."""
        return median(self.rounds) - self.computing_s


def study(sites: int, values: int, rounds: int) -> Study:
    """Carry out a study of toy hospitals with real processes.

    Args:
        sites: hospitals.
        values: numbers of the model.
        rounds: of training.

    Raises:
        FederationError: code `timeout` when it does not end, `bench` when it does not end well.
    """
    names = {f"site-{number:02}": 100 for number in range(1, sites + 1)}
    with tempfile.TemporaryDirectory() as place, federation(Path(place) / "federation", names) as made:
        idle, _ = measured(made, bench_plan(names, 1, "tiny"), _TINY)
        peaks, seconds = measured(made, bench_plan(names, rounds, "large"), values)
        return Study(
            sites,
            values,
            seconds,
            _computing_s(values, Path(place)),
            peaks["serverapp"],
            peaks["superlink"],
            idle["serverapp"],
            peaks["everything"].total,
        )


def memory_table(found: list[Study]) -> Table:
    """Peak memory, a line for each number of sites."""
    head = (
        "sites",
        "numbers",
        "one model, MiB",
        "ServerApp, MiB",
        "idle",
        "models above",
        "own",
        "SuperLink, MiB",
    )
    lines = [
        (
            *(str(s.sites), f"{s.values:,}", f"{BYTES * s.values / MIB:.0f}"),
            *(f"{s.serverapp.total:.0f}", f"{s.idle.total:.0f}", f"{s.models:.2f}", f"{s.own_models:.2f}"),
            f"{s.superlink.total:.0f}",
        )
        for s in found
    ]
    return grid(f"Peak memory of a ServerApp; at most {MODELS_LIMIT:g} models above idle", head, lines)


def overhead_table(found: Study) -> Table:
    """Seconds of a round, and of computing in it."""
    seconds = [
        f"{s:.2f}" for s in (median(found.rounds), min(found.rounds), found.computing_s, found.overhead_s)
    ]
    head = ("sites", "one model, MiB", "median round, s", "shortest", "computing", "beyond computing")
    line = (str(found.sites), f"{BYTES * found.values / MIB:.0f}", *seconds)
    return grid(f"A round over real processes; at most {OVERHEAD_LIMIT_S:g} s beyond computing", head, [line])


def bench_plan(names: dict[str, int], rounds: int, version: str) -> Plan:
    """A plan for toy hospitals of these names, so many rounds of it; `version` tells one study from another."""
    of = {"sites": list(names), "rounds": rounds, "least_sites": len(names), "max_update_norm": 1e9}
    plan = toy_plan(**of, deadline_s=600.0)
    return replace(plan, study={"name": f"bench-{version}"})


def measured(
    made: Federation, plan: Plan, values: int, well: Callable[[], None] = lambda: None
) -> tuple[dict[str, Peak], tuple[float, ...]]:
    """Peak memory and seconds of each round of one study.

    Args:
        made: a federation that runs.
        plan: of the study.
        values: numbers of its model.
        well: raises where it must not go on.

    Raises:
        FederationError: as `study`; whatever `well` raises.
    """
    _plant(made, plan, values)
    watch = Watch(made)
    name = made.submit(plan)

    def over() -> bool:
        well()
        return made.state(name).partition(",")[0] not in ("queued", "running")

    try:
        made.until(over, "the end of the study", _PATIENCE_S)
    finally:
        watch.end()
    record = read_federation(made.home(name) / "federation.json")
    if record.status != COMPLETED or len(record.trained) < len(record.expected):
        kept = _kept(made)
        raise FederationError(
            "study", f"it ended as {record.status}", f"Read the logs in {kept}", code="bench"
        )
    return watch.peaks(), gaps(made.events(name))


def _kept(made: Federation) -> Path:
    """The logs of every process, where they outlast the federation; they hold no patient, as no log of ours does."""
    kept = Path(tempfile.mkdtemp(prefix="consilium-bench-"))
    for log in made.folder.rglob("*.log"):
        shutil.copy(log, kept / "-".join(log.relative_to(made.folder).parts))
    return kept


def gaps(events: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    """Seconds from the survey to the end of the first round, and from each round's end to the next one's.

    Args:
        events: of a run's audit log, in their order.
    """
    ends = [
        datetime.fromisoformat(event["time"])
        for event in events
        if event["event"] in ("survey.completed", "round.completed")
    ]
    return tuple((end - before).total_seconds() for before, end in itertools.pairwise(ends))


def _plant(made: Federation, plan: Plan, values: int) -> None:
    """A checkpoint of zero rounds, as if a run had been stopped before its first."""
    command = [sys.executable, "-c", "from common.code import code_digest; print(code_digest())"]
    said = subprocess.run(  # noqa: S603 - a fixed command of our own, no shell
        command, env=made.environment, cwd=made.folder, capture_output=True, text=True, check=True
    )
    home = made.consortium.folder / "runs" / f"{plan.study.name}-{plan.study.version}-{plan.digest[7:15]}"
    planted(plan, values, home, Digest(said.stdout.strip()))


def planted(plan: Plan, values: int, home: Path, code: Digest) -> None:
    """Leave a checkpoint of zero rounds in a run's folder, with a model of so many numbers.

    Args:
        plan: of the run.
        values: numbers of the model.
        home: the run's folder.
        code: digest of the code that will go on with it.
    """
    record = FederationRecord(
        run=f"run-{secrets.token_hex(8)}",
        plan_digest=plan.digest,
        code_digest=code,
        strategy=plan.federation.strategy,
        private=plan.private,
        expected=(),
        registered=(),
        trained=(),
        subset=False,
        status=RUNNING,
    )
    state, of_none = json.dumps(asdict(record)), Digest("sha256:" + "0" * 64)
    save(
        Checkpoint(RunId(record.run), 0, plan.digest, of_none, _drawn(values), state),
        home / "checkpoint.safetensors",
    )


def _drawn(values: int) -> dict[str, npt.NDArray[np.float32]]:
    """A model of so many numbers, in tensors of at most 16 MiB; no two parts of it are the same bytes, which would travel once."""
    rng = np.random.default_rng(1)
    sizes = [min(_TENSOR, values - begin) for begin in range(0, values, _TENSOR)]
    return {
        f"layer{number}.weight": rng.standard_normal(size, np.float32) for number, size in enumerate(sizes)
    }


def _computing_s(values: int, folder: Path) -> float:
    """Seconds of CPU that one toy hospital's training takes."""
    plan = bench_plan({"alone": 100}, 1, "alone")
    asked = Instruction(
        kind=Kind.TRAIN,
        run=RunId("run-alone"),
        round=1,
        plan_toml=dump_plan(plan),
        plan_digest=plan.digest,
        code_digest=code_digest(),
        arrays=_drawn(values),
    )
    began = time.process_time()
    ToyDuties(SiteName("alone"), folder).train(asked, plan)
    return time.process_time() - began
