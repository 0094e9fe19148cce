"""From a scenario, methods and seeds to a folder of records and one page; what was finished is never run again.

runs/compare-<name>-<digest>/compare.json          every figure
runs/compare-<name>-<digest>/compare.html          the page
runs/compare-<name>-<digest>/cells/<way>-<seed>/   what each left, its `cell.json` last
runs/compare-<name>-<digest>/seed-<n>/             the hospitals of a seed, prepared once for all ways

The folder's name comes from what the scenario says without its seed, so that the same command goes on where it stopped,
and other methods or more seeds find what is there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean

from client.files import storage_error
from client.service import SiteService
from client.store import build_store
from common.checkpoints import write_whole
from common.code import code_digest
from common.errors import ConsiliumError, PlanError
from common.messages import SiteMetrics
from common.plan import Input, Plan
from common.plan import replace as replace_plan
from server.reports.select import group_of
from simulations.arms import Job, carry_out
from simulations.board import board
from simulations.compare.cells import Cell, Compared, Row, keep, kept, row
from simulations.compare.page import write_page
from simulations.compare.ways import ALONE, BASE, POOLED, Way, told
from simulations.crew import Crew, crew, say
from simulations.frontier.sweep import prepared
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site, passing
from simulations.scenario import Scenario
from simulations.sites import virtual_sites


@dataclass(frozen=True)
class Asked:
    """What is compared."""

    scenarios: tuple[Scenario, ...]
    """The scenario, once for each seed."""
    ways: tuple[Way, ...]
    out: Path
    data: Path | None = None


@dataclass(frozen=True)
class _Job:
    way: Way
    seed: int
    plan: Plan
    federation: Federation
    folder: Path
    away: dict[str, tuple[int, ...]]


def compare(asked: Asked, begun: Callable[[Path], None] = lambda _folder: None) -> tuple[Compared, Path]:
    """Run every way with every seed that has not been run, and write the page of all that have.

    Args:
        asked: what to compare.
        begun: told the folder.

    Raises:
        ConsiliumError: what kept hospitals from being made; a way that ends early is in the record with its code.
    """
    folder = _folder(asked)
    begun(folder)
    plans, refused = _plans(asked)
    cells: dict[tuple[str, int], Cell] = {}
    for scenario in asked.scenarios:
        for way, plan in plans.items():
            found = kept(_record(folder, way, scenario), _seeded(plan, scenario).digest)
            if found is not None:
                cells[way, found.seed] = found
    try:
        with board() as bars, crew(bars) as hands:
            for scenario in asked.scenarios:
                _one_seed(asked, scenario, (folder, plans), cells, hands)
    finally:
        record = _whole(asked, (plans, refused), cells)
        write_whole(folder / "compare.json", json.dumps(asdict(record), indent=1).encode())
        write_page(record, folder / "compare.html")
    return record, folder


def _one_seed(
    asked: Asked,
    scenario: Scenario,
    where: tuple[Path, dict[str, Plan]],
    cells: dict[tuple[str, int], Cell],
    hands: Crew,
) -> None:
    """Every way that is missing, on this seed's hospitals; they go when all ways are done."""
    (folder, plans), seed = where, scenario.scenario.seed
    waiting = [way for way in asked.ways if way.name in plans and (way.name, seed) not in cells]
    home = folder / f"seed-{seed}"
    if waiting:
        with passing(home):
            federation = prepared(scenario, home, hands, asked.data)
        inputs = list(dict.fromkeys(plans[way.name].input for way in waiting))
        stores = (partial(_store, federation, name, spec) for name in federation.names for spec in inputs)
        for _ in hands.do(stores):
            pass
        away = _away(scenario)
        jobs = (
            _Job(
                w,
                seed,
                _seeded(plans[w.name], scenario),
                federation,
                _record(folder, w.name, scenario).parent,
                away,
            )
            for w in waiting
        )
        for number, cell in enumerate(hands.do(partial(_work, job) for job in jobs), start=1):
            cells[cell.way, cell.seed] = cell
            hands.bars.tick(f"ways, seed {seed}", number, len(waiting))
    if not any((name, seed) not in cells or cells[name, seed].failed for name in plans):
        shutil.rmtree(home, ignore_errors=True)


def _plans(asked: Asked) -> tuple[dict[str, Plan], dict[str, str]]:
    """The plan of each way, or why it is refused."""
    plans: dict[str, Plan] = {}
    refused: dict[str, str] = {}
    for way in asked.ways:
        try:
            plans[way.name] = way.plan(asked.scenarios[0], usual(asked.scenarios[0]))
        except PlanError as error:
            refused[way.name] = told(error)
    return plans, refused


def _seeded(plan: Plan, scenario: Scenario) -> Plan:
    """The plan with first weights and batches of this seed, the same for every way."""
    seed = scenario.scenario.seed
    return replace_plan(plan, training={"seed": seed}, model={"init_seed": seed})


def usual(scenario: Scenario) -> int:
    """Training patients of a usual hospital, as the scenario says; real images say nothing of it beforehand."""
    setting, data = scenario.scenario, scenario.plan_for("federated").data
    if setting.kind != "virtual":
        each = 300.0
    elif scenario.site:
        # A site of a scenario may give the least and the most of its copies.
        sizes = [
            (s.patients if isinstance(s.patients, tuple) else (s.patients,), s.copies) for s in scenario.site
        ]
        each = sum(fmean(size) * copies for size, copies in sizes) / sum(copies for _, copies in sizes)
    else:
        each = setting.patients / setting.hospitals
    return max(1, round(each * (1 - data.test_fraction - data.validation_fraction)))


def _away(scenario: Scenario) -> dict[str, tuple[int, ...]]:
    if scenario.scenario.kind != "virtual" or not scenario.site:
        return {}
    specs = virtual_sites(scenario.site, scenario.scenario.seed)
    return {spec.name: tuple(spec.away) for spec in specs if spec.away}


def _store(federation: Federation, name: str, spec: Input) -> None:
    build_store(federation.site(name), spec)


def _folder(asked: Asked) -> Path:
    said = asdict(asked.scenarios[0])
    said["scenario"].pop("seed")
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:10]
    folder = asked.out / f"compare-{asked.scenarios[0].scenario.name}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, "the folder for runs") from None
    return folder


def _record(folder: Path, way: str, scenario: Scenario) -> Path:
    return folder / "cells" / f"{way}-{scenario.scenario.seed}" / "cell.json"


def _work(job: _Job) -> Cell:
    """One way on fresh virtual sites; what an interrupted run left of them goes first."""
    arm = f"{job.way.name}-{job.seed}"
    for left in (job.folder, job.federation.folder / "arms" / arm):
        shutil.rmtree(left, ignore_errors=True)
    begun = time.process_time()
    empty = Cell(job.way.name, job.seed, {}, {}, job.federation.external)
    try:
        found = _apart(job) if job.way.name in (ALONE, POOLED) else _federated(job, arm, empty)
    except ConsiliumError as error:
        return replace(empty, failed=error.code)
    cell = replace(
        found,
        seconds=time.process_time() - begun,
        methods=job.way.papers(job.plan),
        plan_digest=job.plan.digest,
        code_digest=code_digest(),
    )
    keep(cell, job.folder / "cell.json")
    shutil.rmtree(job.federation.folder / "arms" / arm, ignore_errors=True)
    return cell


def _federated(job: _Job, arm: str, empty: Cell) -> Cell:
    names = job.federation.names
    sites = [arm_site(job.federation, arm, name, private=False) for name in names]
    steps = (job.plan.federation.rounds + 3) * len(names)
    answers = iter(range(1, steps + 1))

    def progress(_step: int, _site: str) -> None:
        """Move this way's bar."""
        say("rounds of the ways in hand", next(answers, steps), steps, part=arm)

    found = run_in_process([SiteService(site) for site in sites], job.plan, job.folder, progress, job.away)
    own = job.plan.personalisation.method != "none"
    cell = _figures(empty, dict(found.sites), "personalised" if own else "federated")
    up, down = sum(r.bytes_up for r in found.rounds), sum(r.bytes_down for r in found.rounds)
    return replace(cell, rounds=len(found.rounds), bytes_up=up, bytes_down=down)


def _apart(job: _Job) -> Cell:
    """Each hospital alone, or all in one place: the arms of a scenario, as they are."""
    name = job.way.name
    arm = Job("alone" if name == ALONE else "pooled", job.plan, job.federation, job.folder)
    shutil.rmtree(job.federation.folder / "arms" / arm.arm, ignore_errors=True)
    jobs = [replace(arm, hospital=h) for h in job.federation.training] if name == ALONE else [arm]
    sites = {site: metrics for one in jobs for site, metrics in carry_out(one).sites.items()}
    return _figures(Cell(name, job.seed, {}, {}, job.federation.external), sites, name)


def _figures(cell: Cell, sites: dict[str, SiteMetrics], model: str) -> Cell:
    """AUROC and calibration error of one of the models that hospitals measured, of the shared one where that is all."""
    chosen = {
        name: next((m for m in of.models if m.model == model), of.models[0] if of.models else None)
        for name, of in sorted(sites.items())
    }
    groups = {name: group_of(of) if of else None for name, of in chosen.items()}
    return replace(
        cell,
        sites={name: g.auroc.value if g and g.auroc else None for name, g in groups.items()},
        ece={name: g.ece if g else None for name, g in groups.items()},
        model=model,
    )


def _whole(
    asked: Asked, ways: tuple[dict[str, Plan], dict[str, str]], cells: dict[tuple[str, int], Cell]
) -> Compared:
    (plans, refused), scenario = ways, asked.scenarios[0]
    plan, virtual = plans[BASE], scenario.scenario.kind == "virtual"
    # Of real images each seed splits the same patients anew; of virtual ones each seed has its own.
    trained = 1 - plan.data.test_fraction - plan.data.validation_fraction
    ratio = 0.0 if virtual else plan.data.test_fraction / trained
    seeds = tuple(s.scenario.seed for s in asked.scenarios)
    of = {way.name: [c for s in seeds if (c := cells.get((way.name, s)))] for way in asked.ways}
    rows = [
        _refused(way.name, refused[way.name])
        if way.name in refused
        else row(way.name, of[way.name], of[BASE], ratio)
        for way in asked.ways
    ]
    missing = tuple(f"{name}-{s}" for name in plans for s in seeds if (name, s) not in cells)
    return Compared(
        name=scenario.scenario.name,
        question=plan.study.question,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seeds=seeds,
        virtual=virtual,
        source=plan.labels.provenance,
        hospitals=tuple(sorted({site for cell in cells.values() for site in cell.sites})),
        rows=tuple(rows),
        cells=tuple(cell for group in of.values() for cell in group),
        missing=missing,
    )


def _refused(way: str, why: str) -> Row:
    none: Sequence[Cell] = ()
    return replace(row(way, none, none, 0.0), refused=why)
