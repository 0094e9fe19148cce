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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean

from client.files import storage_error
from client.store import build_store
from common.checkpoints import write_whole
from common.errors import PlanError
from common.plan import Input, Plan
from common.plan import replace as replace_plan
from simulations.board import board
from simulations.compare.beyond import raw_read
from simulations.compare.cells import Cell, Compared, Row, kept, row
from simulations.compare.page import write_page
from simulations.compare.ways import BASE, Way, told
from simulations.compare.work import Work, carried_out
from simulations.crew import Crew, crew
from simulations.frontier.sweep import prepared
from simulations.partition import read_table
from simulations.prepare import Federation, passing
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
            Work(
                w,
                seed,
                _seeded(plans[w.name], scenario),
                federation,
                _record(folder, w.name, scenario).parent,
                away,
            )
            for w in waiting
        )
        for number, cell in enumerate(hands.do(partial(carried_out, job) for job in jobs), start=1):
            cells[cell.way, cell.seed] = cell
            hands.bars.tick(f"ways, seed {seed}", number, len(waiting))
    if not any((name, seed) not in cells or cells[name, seed].failed for name in plans):
        shutil.rmtree(home, ignore_errors=True)


def _plans(asked: Asked) -> tuple[dict[str, Plan], dict[str, str]]:
    """The plan of each way, or why it is refused."""
    plans: dict[str, Plan] = {}
    refused: dict[str, str] = {}
    patients = usual(asked.scenarios[0], asked.data)
    for way in asked.ways:
        try:
            plans[way.name] = way.plan(asked.scenarios[0], patients)
        except PlanError as error:
            refused[way.name] = told(error)
    return plans, refused


def _seeded(plan: Plan, scenario: Scenario) -> Plan:
    """The plan with first weights and batches of this seed, the same for every way."""
    seed = scenario.scenario.seed
    return replace_plan(plan, training={"seed": seed}, model={"init_seed": seed})


def usual(scenario: Scenario, data: Path | None = None) -> int:
    """Training patients of a usual hospital: their mean.

    Args:
        scenario: says how many there are, where they are virtual.
        data: the folder whose table says it, where images are real; without it 300 a hospital are taken.

    Raises:
        LabelError: of that table.
    """
    setting, split = scenario.scenario, scenario.plan_for("federated").data
    if setting.kind != "virtual":
        each = 300.0 if data is None else _counted(scenario, data)
    elif scenario.site:
        # A site of a scenario may give the least and the most of its copies.
        sizes = [
            (s.patients if isinstance(s.patients, tuple) else (s.patients,), s.copies) for s in scenario.site
        ]
        each = sum(fmean(size) * copies for size, copies in sizes) / sum(copies for _, copies in sizes)
    else:
        each = setting.patients / setting.hospitals
    return max(1, round(each * (1 - split.test_fraction - split.validation_fraction)))


def _counted(scenario: Scenario, data: Path) -> float:
    """Mean number of patients of the hospitals that train, as their table has them."""
    setting = scenario.scenario
    rows = read_table(data / setting.table)
    people: dict[str, set[str]] = {}
    for site, line in zip(setting.cut.sites_of(rows, setting.seed), rows, strict=True):
        if site not in setting.external:
            people.setdefault(site, set()).add(line["patient_id"])
    return fmean([len(of) for of in people.values()]) if people else 1.0


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
        external=() if virtual else scenario.scenario.external,
        ratio=ratio,
        raw=None if virtual or asked.data is None else raw_read(scenario, asked.data),
    )


def _refused(way: str, why: str) -> Row:
    none: Sequence[Cell] = ()
    return replace(row(way, none, none, 0.0), refused=why)
