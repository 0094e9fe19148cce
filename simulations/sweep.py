"""One scenario over a grid of settings: every point once, resumable, on all cores or on a Ray cluster that is there.

    consilium-sim sweep FILE --set plan.training.learning_rate=0.01,0.1 --set scenario.seed=1,2,3

<out>/<name>-<digest>/sweep.json          every point's figures
<out>/<name>-<digest>/points/<point>/     what each left: `arms/<arm>/`, its `record.json` last

A point is one value of every key. Points whose hospitals are the same find them prepared (`simulations.prepared`); each trains on an
index, ledgers and scores of its own. The folder's name comes from scenario and grid, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from client.files import storage_error
from common.checkpoints import write_whole
from common.code import code_digest
from server.records import ArmRecord
from server.reports.select import group_of
from simulations.arms import Job, carry_out, joined
from simulations.board import board
from simulations.cluster import cluster
from simulations.crew import Crew, crew
from simulations.prepare import Federation, passing, prepare
from simulations.prepared import digest_of, dressed, prepared
from simulations.scenario import Scenario, scenario_with
from simulations.sweep_shown import Figures, Point, Swept, Watched

_RECORD: Final = "record.json"
_PREPARED: Final = "prepared.json"


@dataclass(frozen=True)
class Asked:
    """What to do, and where."""

    path: Path
    grid: Mapping[str, Sequence[Any]]
    out: Path
    cache: Path | None = None
    """Of prepared hospitals; in the sweep's own folder when None."""
    data: Path | None = None
    """Folder of real images."""
    ray: str = ""
    """Address of a Ray cluster; empty: the cores of this machine."""
    silent: bool = False
    """Whether nothing is shown while it runs."""


@dataclass(frozen=True)
class _Work:
    """One point for one worker."""

    name: str
    settings: dict[str, Any]
    scenario: Scenario
    federation: Federation
    folder: Path


def sweep(
    asked: Asked,
    told: Callable[[Point, int, int], None] = lambda _point, _done, _all: None,
    begun: Callable[[Path], None] = lambda _folder: None,
) -> tuple[Swept, Path]:
    """Carry out every point that has not been.

    Args:
        asked: what.
        told: given each point as it ends, how many there are by then and in all.
        begun: told the folder.

    Raises:
        PlanError, InputError: a setting that cannot be, before anything is begun.
        ConsiliumError: what ended a point; the record of those that finished is written all the same.
    """
    settings = [
        dict(zip(asked.grid, values, strict=True)) for values in itertools.product(*asked.grid.values())
    ]
    scenarios = {
        name_of(one): (one, scenario_with(asked.path, one, with_data=asked.data is not None))
        for one in settings
    }
    folder = _folder(asked, next(iter(scenarios.values()))[1])
    begun(folder)
    before = {name: kept(folder, name) for name in scenarios}
    waiting = {name: of for name, of in scenarios.items() if before[name] is None}
    watched = Watched(asked.path.stem, [(name, one) for name, (one, _) in scenarios.items()])
    for point in before.values():
        if point is not None:
            watched.ended(point)
    try:
        if waiting:
            _carry_out(asked, folder, waiting, told, watched)
    finally:
        found = {name: kept(folder, name) for name in scenarios}
        swept = Swept(
            asked.path.stem,
            tuple(asked.grid),
            tuple(point for point in found.values() if point is not None),
            tuple(name for name, point in found.items() if point is None),
        )
        write_whole(folder / "sweep.json", json.dumps(asdict(swept), indent=1).encode())
    return swept, folder


def name_of(settings: Mapping[str, Any]) -> str:
    """A short name of one point: of what it sets, whatever the order."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def kept(folder: Path, name: str) -> Point | None:
    """What an earlier run left of a point; None where it did not finish, or ran other code."""
    try:
        found = TypeAdapter(Point).validate_json((folder / "points" / name / _RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.code_digest == code_digest() else None


def _carry_out(
    asked: Asked,
    folder: Path,
    waiting: Mapping[str, tuple[dict[str, Any], Scenario]],
    told: Callable[[Point, int, int], None],
    watched: Watched,
) -> None:
    of = len(watched.points)
    with ExitStack() as stack:
        bars = stack.enter_context(board(watched.drawn, silent=asked.silent))
        # A cluster that is not there is found out before minutes go into hospitals.
        far = stack.enter_context(cluster(asked.ray, bars)) if asked.ray else None
        hands = stack.enter_context(crew(bars))
        homes = _homes(asked, folder, [scenario for _, scenario in waiting.values()], hands)
        crowd = far or hands
        watched.at_once = crowd.size
        jobs = (
            partial(_point, _Work(name, one, scenario, homes[_home(scenario)], folder / "points" / name))
            for name, (one, scenario) in waiting.items()
        )
        for number, point in enumerate(crowd.do(jobs), start=of - len(waiting) + 1):
            watched.ended(point)
            bars.tick("settings", number, of)
            told(point, number, of)


def _homes(asked: Asked, folder: Path, scenarios: Sequence[Scenario], hands: Crew) -> dict[str, Federation]:
    """The hospitals of every point, each kind of them prepared once."""
    homes: dict[str, Federation] = {}
    for scenario in scenarios:
        key = _home(scenario)
        if key not in homes:
            virtual = scenario.scenario.kind == "virtual"
            place = asked.cache or folder / "hospitals"
            homes[key] = (
                prepared(scenario, place, hands)
                if virtual
                else _real(scenario, folder / "hospitals" / key, hands, asked.data)
            )
    return homes


def _real(scenario: Scenario, folder: Path, hands: Crew, data: Path | None) -> Federation:
    """Hospitals of real images, found again where an earlier run made them whole."""
    external = scenario.scenario.external
    if not (folder / _PREPARED).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        with passing(folder):
            names = prepare(scenario, folder, hands, data).names
        write_whole(folder / _PREPARED, json.dumps(names).encode())
    return Federation(folder, tuple(json.loads((folder / _PREPARED).read_text())), external, {}, {})


def _home(scenario: Scenario) -> str:
    if scenario.scenario.kind == "virtual":
        return digest_of(scenario)
    text = json.dumps(
        [asdict(scenario.scenario), scenario.plan.get("input"), scenario.plan.get("data")], default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _point(of: _Work) -> Point:
    """One point on fresh virtual sites; what an interrupted run left of it goes first."""
    began = time.monotonic()
    shutil.rmtree(of.folder, ignore_errors=True)
    home = of.folder / "federation"
    federation = dressed(of.federation, home)
    arms = of.scenario.scenario.arms
    records = {
        arm: _arm(Job(arm, of.scenario.plan_for(arm), federation, of.folder / "arms" / arm, workers=1))
        for arm in arms
    }
    point = Point(
        of.name,
        of.settings,
        {arm: figures(record) for arm, record in records.items()},
        {arm: of.scenario.plan_for(arm).digest for arm in arms},
        code_digest(),
        time.monotonic() - began,
    )
    write_whole(of.folder / _RECORD, json.dumps(asdict(point), indent=1).encode())
    shutil.rmtree(home, ignore_errors=True)
    return point


def _arm(job: Job) -> ArmRecord:
    if job.arm != "alone":
        return carry_out(job)
    first, *others = [carry_out(replace(job, hospital=name)) for name in job.federation.training]
    for other in others:
        first = joined(first, other)
    return first


def figures(record: ArmRecord) -> Figures:
    """What of an arm's record is compared between points."""
    groups = [group_of(site.models[0]) for site in record.sites.values() if site.models]
    areas = [group.auroc.value for group in groups if group is not None and group.auroc is not None]
    ran = record.federation
    return Figures(
        mean_auroc=sum(areas) / len(areas) if areas else None,
        worst_auroc=min(areas, default=None),
        sites=len(areas),
        status="completed" if ran is None else ran.status,
        subset=ran is not None and ran.subset,
        seconds=record.seconds,
    )


def _folder(asked: Asked, scenario: Scenario) -> Path:
    said = json.dumps([asdict(scenario.scenario), {k: list(v) for k, v in asked.grid.items()}], default=str)
    text = asked.path.read_text(encoding="utf-8") + said
    folder = asked.out / f"{asked.path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    try:
        (folder / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, "the folder for runs") from None
    return folder
