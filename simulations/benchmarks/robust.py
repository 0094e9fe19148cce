"""What a robust rule costs when nobody lies, and what it saves when one hospital does; and fewer bits beside them.

Seven virtual hospitals train a linear head through the whole machinery, once for every rule and every lie. The liar
is the seventh hospital: its own training is honest, and its update is changed before it leaves. The figure is the mean
AUROC of the six honest hospitals' own test patients, after one seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as with_changes
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from rich.table import Table

from client.duties import ImagingDuties
from client.service import SiteService
from client.site import Site
from common.cli import grid
from common.messages import Estimate, Instruction, Update
from common.plan import Plan, replace
from common.types import Arrays
from server.records import FederationRecord
from server.reports.chance import mean
from server.reports.select import group_of
from simulations.board import board
from simulations.crew import crew
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site, passing, prepare
from simulations.scenario import HERE, load_scenario

HOSPITALS: Final = 7
RULES: Final = ("none", "norm-bound", "trimmed-mean", "median", "multi-krum", "bulyan")
Lie = Callable[[Arrays, np.random.Generator], Arrays]


def reversed_times(factor: float, arrays: Arrays, _rng: np.random.Generator) -> Arrays:
    """The opposite of what was learned, `factor` times as long."""
    return {name: (-np.float32(factor) * array).astype(np.float32) for name, array in arrays.items()}


def noise_times(factor: float, arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """A random direction, `factor` times as long as what was learned."""
    drawn = {name: rng.normal(size=array.shape) for name, array in arrays.items()}
    own = np.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays.values()))
    length = np.sqrt(sum(float(np.sum(np.square(a))) for a in drawn.values()))
    return {name: (a * factor * own / length).astype(np.float32) for name, a in drawn.items()}


LIES: Final[dict[str, Lie | None]] = {
    "nobody lies": None,
    "reversed": partial(reversed_times, 1.0),
    "reversed, 10 times as long": partial(reversed_times, 10.0),
    "noise, 10 times as long": partial(noise_times, 10.0),
}


class LyingDuties(ImagingDuties):
    """A hospital that trains honestly and then sends something else."""

    def __init__(self, site: Site, lie: Lie) -> None:
        super().__init__(site)
        self._lie = lie
        self._rng = np.random.default_rng(0)

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        """See `ImagingDuties.train`."""
        update = super().train(instruction, plan)
        return with_changes(update, arrays=self._lie(update.arrays, self._rng))


@dataclass(frozen=True)
class RobustRow:
    """One rule or coding under one lie."""

    rule: str
    bits: int
    lie: str
    auroc: Estimate | None
    """Mean over the honest hospitals, whose intervals it combines; None where too few patients were tested."""
    bytes_up: int
    """Of all updates of the run."""


@dataclass(frozen=True)
class RobustTable:
    """All rows of one run of the command."""

    rows: tuple[RobustRow, ...]
    seed: int

    def table(self) -> Table:
        """Rules down, lies across; then the codings."""
        found = {(row.rule, row.bits, row.lie): row for row in self.rows}
        lines = [(rule, *(_said(found[rule, 32, lie].auroc) for lie in LIES)) for rule in RULES]
        plain = found["none", 32, "nobody lies"]
        for bits in (16, 8):
            row = found["none", bits, "nobody lies"]
            share = row.bytes_up / plain.bytes_up
            lines.append((f"none, {bits} bits: {share:.3f} of the bytes", _said(row.auroc), "", "", ""))
        return grid("AUROC of the honest hospitals", ("rule", *LIES), lines)


@dataclass(frozen=True)
class _Job:
    federation: Federation
    plan: Plan
    rule: str
    bits: int
    lie: str
    folder: Path


def robust_rules(patients: int, rounds: int, seed: int) -> RobustTable:
    """Every rule under every lie, and every coding without one.

    Args:
        patients: of all seven hospitals together.
        rounds: of each run.
        seed: of patients, scanners, splits and batches.
    """
    scenario = load_scenario(HERE / "demo.toml", seed=seed, hospitals=HOSPITALS, patients=patients)
    with (
        tempfile.TemporaryDirectory() as place,
        passing(Path(place) / "federation"),
        board() as bars,
        crew(bars) as hands,
    ):
        federation = prepare(scenario, Path(place) / "federation", hands)
        jobs = list(_jobs(federation, scenario.plan_for("federated"), rounds, Path(place)))
        rows = []
        for row in hands.do(partial(_run, job) for job in jobs):
            rows.append(row)
            bars.tick("runs", len(rows), len(jobs))
    return RobustTable(tuple(rows), seed)


def _jobs(federation: Federation, plan: Plan, rounds: int, place: Path) -> Iterator[_Job]:
    plan = replace(plan, personalisation={"method": "none"})
    settings = [(rule, 32, lie) for rule in RULES for lie in LIES]
    settings += [("none", bits, "nobody lies") for bits in (16, 8)]
    for number, (rule, bits, lie) in enumerate(settings):
        of = {"rounds": rounds, "least_sites": HOSPITALS, "robust": rule, "update_bits": bits}
        yield _Job(
            federation, replace(plan, federation=of), rule, bits, lie, place / "runs" / f"setting-{number}"
        )


def _run(job: _Job) -> RobustRow:
    names = job.federation.names
    sites = [arm_site(job.federation, job.folder.name, name, private=False) for name in names]
    lie = LIES[job.lie]
    services = [
        SiteService(site, LyingDuties(site, lie) if lie and site.name == names[-1] else None)
        for site in sites
    ]
    record = run_in_process(services, job.plan, job.folder)
    return RobustRow(
        job.rule, job.bits, job.lie, _honest(record, names[:-1]), sum(r.bytes_up for r in record.rounds)
    )


def _honest(record: FederationRecord, names: tuple[str, ...]) -> Estimate | None:
    groups = [group_of(record.sites[name].models[0]) for name in names if name in record.sites]
    return mean([g.auroc for g in groups if g is not None and g.auroc is not None])


def _said(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.2f} to {estimate.high:.2f})"
