"""From a scenario with `[frontier]` to a folder of records and one page; what was finished is never run again.

runs/<name>-<digest>/frontier.json         every figure
runs/<name>-<digest>/frontier.html         the page
runs/<name>-<digest>/points/<point>/       what each setting left, its `record.json` last
runs/<name>-<digest>/federation/           the hospitals, prepared once for all settings

The folder's name comes from what the scenario says, so the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from client.files import storage_error
from client.privacy.plan import DpPlan
from client.service import SiteService
from common.checkpoints import write_whole
from common.code import code_digest
from common.messages import Estimate
from common.models import build
from common.plan import Plan
from server.records import FederationRecord
from server.reports.chance import mean
from server.reports.select import group_of, patients
from simulations.board import board
from simulations.crew import Crew, crew, say
from simulations.frontier.page import write_page
from simulations.frontier.points import (
    FrontierRecord,
    Point,
    PointRecord,
    digest_of,
    keep,
    kept,
    plan_of,
    points_of,
)
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site, passing, prepare
from simulations.scenario import Scenario

_PREPARED = "prepared.json"


@dataclass(frozen=True)
class _Job:
    point: Point
    plan: Plan
    federation: Federation
    folder: Path


def run_frontier(
    scenario: Scenario,
    out: Path,
    data: Path | None = None,
    *,
    begun: Callable[[Path], None] = lambda _folder: None,
) -> tuple[FrontierRecord, Path]:
    """Run every setting that has not been run, and write the page of all that have.

    Args:
        scenario: with `[frontier]`.
        out: receives one sub-folder, or holds it already.
        data: the folder of real images, where the scenario needs one.
        begun: told the sub-folder.

    Raises:
        ConsiliumError: what ended a setting; the page of those that finished is written all the same.
    """
    points = points_of(scenario)
    folder = _folder(scenario, out)
    begun(folder)
    waiting = [point for point in points if kept(_record_of(folder, point)) is None]
    try:
        if waiting:
            with passing(folder / "federation"), board() as bars, crew(bars) as hands:
                federation = prepared(scenario, folder / "federation", hands, data)
                jobs = (
                    _Job(p, plan_of(scenario, p), federation, folder / "points" / p.name) for p in waiting
                )
                for number, _ in enumerate(hands.do(partial(_work, job) for job in jobs), start=1):
                    bars.tick("settings", number, len(waiting))
    finally:
        record = _whole(scenario, folder, points)
        write_whole(folder / "frontier.json", json.dumps(asdict(record), indent=1).encode())
        write_page(record, folder / "frontier.html")
    return record, folder


def _folder(scenario: Scenario, out: Path) -> Path:
    folder = out / f"{scenario.scenario.name}-{digest_of(scenario)}"
    try:
        (folder / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, "the folder for runs") from None
    return folder


def _record_of(folder: Path, point: Point) -> Path:
    return folder / "points" / point.name / "record.json"


def prepared(scenario: Scenario, folder: Path, hands: Crew, data: Path | None) -> Federation:
    """The hospitals, found again where an earlier run made them whole."""
    mark = folder / _PREPARED
    external = scenario.scenario.external
    if mark.is_file():
        return Federation(folder, tuple(json.loads(mark.read_text())), external, {}, {})
    shutil.rmtree(folder, ignore_errors=True)
    federation = prepare(scenario, folder, hands, data)
    write_whole(mark, json.dumps(federation.names).encode())
    return Federation(folder, federation.names, external, {}, {})


def _work(job: _Job) -> PointRecord:
    """One setting on fresh virtual sites; what an interrupted run left of them goes first."""
    begun = time.monotonic()
    for left in (job.folder, job.federation.folder / "arms" / job.point.name):
        shutil.rmtree(left, ignore_errors=True)
    names = job.federation.names
    private = job.plan.private
    sites = [arm_site(job.federation, job.point.name, name, private=private) for name in names]
    steps = (job.plan.federation.rounds + 3) * len(names)
    answers = iter(range(1, steps + 1))

    def progress(_step: int, _site: str) -> None:
        """Move this setting's bar."""
        say("rounds of the settings in hand", next(answers, steps), steps, part=job.point.name)

    found = run_in_process([SiteService(site) for site in sites], job.plan, job.folder, progress)
    record = _measured(job, found, time.monotonic() - begun)
    keep(record, job.folder / "record.json")
    shutil.rmtree(job.federation.folder / "arms" / job.point.name, ignore_errors=True)
    return record


def _measured(job: _Job, found: FederationRecord, seconds: float) -> PointRecord:
    groups = {
        name: group_of(site.models[0]) if site.models else None for name, site in sorted(found.sites.items())
    }
    aurocs = {name: group.auroc if group else None for name, group in groups.items()}
    trained: list[Estimate] = [
        e for name, e in aurocs.items() if e is not None and name not in job.federation.external
    ]
    spent = [site.epsilon for site in found.sites.values() if site.epsilon is not None]
    rows, columns = job.plan.input.shape[-2:]
    net = build(job.plan.model, job.plan.task.outputs, (rows, columns))
    return PointRecord(
        point=job.point,
        network=job.plan.model.name,
        trainable=sum(p.numel() for p in net.trainable().values()),
        noise=DpPlan.from_plan(job.plan, 1).noise_multiplier if job.plan.private else None,
        sites=aurocs,
        patients={name: patients(group) for name, group in groups.items()},
        mean=mean(trained, job.plan.evaluation.confidence),
        spent=max(spent, default=None),
        subset=found.subset,
        seconds=seconds,
        plan_digest=job.plan.digest,
        code_digest=code_digest(),
    )


def _whole(scenario: Scenario, folder: Path, points: list[Point]) -> FrontierRecord:
    found = {point.name: kept(_record_of(folder, point)) for point in points}
    private = next((p for p in points if p.epsilon is not None), points[0])
    plan = plan_of(scenario, private)
    return FrontierRecord(
        name=scenario.scenario.name,
        question=plan.study.question,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=scenario.scenario.seed,
        source=plan.labels.provenance,
        virtual=scenario.scenario.kind == "virtual",
        rounds=plan.federation.rounds,
        sampling_rate=plan.privacy.sampling_rate,
        steps_per_round=plan.privacy.steps_per_round,
        delta=plan.privacy.delta,
        confidence=plan.evaluation.confidence,
        points=tuple(record for record in found.values() if record is not None),
        missing=tuple(name for name, record in found.items() if record is None),
    )
