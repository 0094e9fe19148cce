"""Many simulations in batches, kept as they end: the same command goes on where it stopped.

<out>/batches.jsonl     one line a batch: its case, its number, what was counted
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from client.files import storage_error
from common.statistics import families_of
from common.statistics.catalogue import Metric
from simulations.board import board
from simulations.crew import crew
from simulations.null_rate.cohorts import EXACT, NULLS, Cohort
from simulations.null_rate.trials import Tally, Trial, carry_out

BATCH: Final = 50
"""Simulations that are lost when it is stopped."""
SIZES: Final = (300, 600, 1200, 2400)
"""Patients of the power table."""
GAPS: Final = (0.0, 0.03, 0.06, 0.10, 0.15)
"""How much lower the AUROC of the weak manufacturer is, from 0.85."""
COSTLY: Final[tuple[Metric, ...]] = ("auprc", "slope", "intercept", "calibration_error")
"""Figures that the large run leaves out."""
_COSTLY_COHORT: Final = Cohort("costly", "", images=4)
_SINGLE: Final = (("site",), ("manufacturer",), ("sex",))
LINES: Final = "batches.jsonl"


@dataclass(frozen=True)
class Sweep:
    """What is to be carried out."""

    simulations: int
    """Over all null cases in which permutation is exact; each of the others gets as many as one of these."""
    power: int
    """For each size and gap."""
    seed: int
    costly: int = 0
    """For each figure that is not in the large run."""


@dataclass(frozen=True)
class Result:
    """What was counted, by case."""

    seed: int
    nulls: dict[str, Tally]
    power: dict[str, Tally]
    """By `patients/gap`."""
    costly: dict[str, Tally] = field(default_factory=dict)
    """By figure."""


@dataclass(frozen=True)
class _Job:
    key: str
    number: int
    size: int
    trial: Trial


def null_trial(cohort: Cohort) -> Trial:
    """How a null case is judged: by everything in which its groups are truly alike."""
    if cohort.wide != 1:
        return Trial(cohort, (("manufacturer",),), ("auroc",))
    names = ["site", "manufacturer", "sex", *(["projection"] if cohort.views else [])]
    if len(set(cohort.areas)) > 1:
        names.remove("site")
    return Trial(cohort, families_of(names, pairs=False))


def costly_trial(metric: Metric) -> Trial:
    """One figure that is dear to permute: three manufacturers of patients with several images, 199 permutations."""
    return Trial(_COSTLY_COHORT, (("manufacturer",),), (metric,), permutations=199)


def power_trial(patients: int, gap: float) -> Trial:
    """One gap planted in one manufacturer of three; judged by AUROC alone, all single families together."""
    cohort = Cohort("power", "", patients=patients, planted=gap, images=2)
    return Trial(cohort, _SINGLE, ("auroc",))


def sweep(plan: Sweep, out: Path, workers: int | None = None) -> Result:
    """Carry out what is not yet in the folder, and count all that the plan asks for.

    Args:
        plan: how many simulations.
        out: the folder.
        workers: processes; one a core where not given.

    Raises:
        StorageError: the folder cannot be written.
    """
    jobs = _jobs(plan)
    kept = _kept(out / LINES, plan.seed)
    left = [job for job in jobs if (job.key, job.number, job.size) not in kept]
    if left:
        _carry_out(left, kept, (out, plan.seed), workers)
    result = Result(plan.seed, {}, {})
    for job in jobs:
        kind, _, name = job.key.partition(":")
        into = {"null": result.nulls, "power": result.power, "costly": result.costly}[kind]
        into.setdefault(name, Tally()).add(kept[job.key, job.number, job.size])
    return result


_Kept = dict[tuple[str, int, int], Tally]


def _carry_out(left: Sequence[_Job], kept: _Kept, where: tuple[Path, int], workers: int | None) -> None:
    out, seed = where
    try:
        out.mkdir(parents=True, exist_ok=True)
        with board() as bars, crew(bars, workers) as team, (out / LINES).open("a", encoding="utf-8") as file:
            work: list[Callable[[], tuple[_Job, Tally]]] = [partial(_do, job, seed) for job in left]
            for done, (job, tally) in enumerate(team.do(work), 1):
                line = {
                    "seed": seed,
                    "key": job.key,
                    "number": job.number,
                    "size": job.size,
                    "tally": asdict(tally),
                }
                file.write(json.dumps(line) + "\n")
                file.flush()
                kept[job.key, job.number, job.size] = tally
                bars.tick("simulations", done * BATCH, len(left) * BATCH)
    except OSError as error:
        raise storage_error(error, out.name) from None


def _do(job: _Job, seed: int) -> tuple[_Job, Tally]:
    # The seed does not know the batch's place in the plan: a longer run repeats a shorter one.
    kind = zlib.crc32(job.key.encode())
    return job, carry_out(job.trial, (seed, kind, job.number), job.size)


def _jobs(plan: Sweep) -> list[_Job]:
    """Batches, every case's first before any case's second."""
    each = -(-plan.simulations // len(EXACT))
    cases = [(f"null:{c.name}", null_trial(c), each) for c in NULLS]
    jobs = list(_batched(cases))
    grid = [(f"power:{n}/{g:g}", power_trial(n, g), plan.power) for n in SIZES for g in GAPS]
    dear = [(f"costly:{metric}", costly_trial(metric), plan.costly) for metric in COSTLY]
    return jobs + list(_batched(grid)) + list(_batched(dear))


def _batched(cases: Sequence[tuple[str, Trial, int]]) -> list[_Job]:
    most = max((total for _, _, total in cases), default=0)
    return [
        _Job(key, start // BATCH, min(BATCH, total - start), trial)
        for start in range(0, most, BATCH)
        for key, trial, total in cases
        if start < total
    ]


def _kept(path: Path, seed: int) -> _Kept:
    """Batches of an earlier run; a line that was cut off is carried out again."""
    found: _Kept = {}
    if not path.is_file():
        return found
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["seed"] == seed:
            found[line["key"], line["number"], line["size"]] = Tally(**line["tally"])
    return found
