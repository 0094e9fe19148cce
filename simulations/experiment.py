"""From a scenario to a folder of records and reports.

runs/<id>/plan.toml           the plan of the published model
runs/<id>/model.safetensors   its weights: of `federated-dp` where that arm ran, else of `federated`
runs/<id>/metrics.json        every figure (docs/metrics.md)
runs/<id>/audit.jsonl         the server's log of that run, hash-chained
runs/<id>/report.html         the consortium's report
runs/<id>/sites/<name>/       each hospital's own report, which would stay there
runs/<id>/federation/         the virtual hospitals themselves
"""

from __future__ import annotations

import secrets
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from client.report import build as build_site_report
from client.report import write_site_report
from client.report.compose import Shown
from common import checkpoints
from common.code import code_digest
from common.messages import IntakeSummary
from common.models import Network, architecture_digest, build, set_arrays
from common.plan import Plan, dump_plan
from server.records import ArmRecord, RunRecord, SimulationOnly, write_record
from server.reports.consortium import write_report
from simulations import probes
from simulations.arms import comparisons, run_arms
from simulations.board import CONTEXT, Board, board
from simulations.prepare import Federation, arm_site, prepare
from simulations.scanners import SCANNERS, WEAK
from simulations.scenario import Arm, Scenario

_FEDERATED: tuple[Arm, ...] = ("federated", "federated-dp")
_CHEST_SEED = 0x636865
"""Keeps the probe's patients apart from the training patients of any scenario seed."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: its record and where everything lies."""

    record: RunRecord
    folder: Path


def run_scenario(scenario: Scenario, out: Path, data: Path | None = None) -> Outcome:
    """Prepare the hospitals, run every arm, measure, write records and reports.

    Args:
        scenario: what to do.
        out: receives one sub-folder.
        data: the folder of real images, for scenarios of kind `images`.

    Raises:
        ConsiliumError: what ended the run; nothing is reported from half a run.
    """
    setting = scenario.scenario
    run = f"{setting.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = out / run
    folder.mkdir(parents=True)
    with board() as bars:
        federation = prepare(scenario, folder / "federation", bars, data)
        arms = run_arms(scenario, federation, folder, bars)
        record = _record(run, scenario, federation, arms, folder)
        _publish(scenario, folder)
        write_record(record, folder / "metrics.json")
        write_report(record, folder / "report.html")
        _site_reports(scenario, federation, record, folder, bars)
    return Outcome(record, folder)


def network(folder: Path, arm: str, plan: Plan) -> Network:
    """The final network of a federated arm, from its checkpoint."""
    rows, columns = plan.input.shape[-2:]
    net = build(plan.model, plan.task.outputs, (rows, columns))
    path = folder / "arms" / arm / "model.safetensors"
    set_arrays(net, checkpoints.load(path, architecture_digest(net)).arrays)
    return net


def _record(
    run: str, scenario: Scenario, federation: Federation, arms: dict[str, ArmRecord], folder: Path
) -> RunRecord:
    plan = scenario.plan_for(_main_arm(scenario))
    return RunRecord(
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        study=plan.study.name,
        question=plan.study.question,
        plan_digest=plan.digest,
        code_digest=code_digest(),
        seed=scenario.scenario.seed,
        simulated=True,
        arms=arms,
        comparisons=comparisons(federation, plan),
        intake=_intake(arms),
        external=federation.external,
        simulation_only=_simulation_only(scenario, federation, folder),
        plan_toml=dump_plan(plan),
    )


def _intake(arms: dict[str, ArmRecord]) -> dict[str, IntakeSummary]:
    for arm in arms.values():
        if arm.federation is not None:
            return dict(arm.federation.intake)
    return {}


def _simulation_only(scenario: Scenario, federation: Federation, folder: Path) -> SimulationOnly | None:
    arm = _main_arm(scenario)
    if scenario.scenario.kind != "virtual" or arm not in _FEDERATED:
        return None
    torch.set_num_threads(1)
    plan = scenario.plan_for(arm)
    net = network(folder, arm, plan)
    makers = {
        name: ", ".join(sorted({SCANNERS[s].manufacturer for w in spec.scanners.values() for s in w}))
        for name, spec in federation.specs.items()
    }
    return SimulationOnly(
        scanner_of_site=makers,
        planted_weak_scanner=SCANNERS[WEAK].manufacturer,
        same_chest=probes.same_chest(net, plan, scenario.scenario.seed ^ _CHEST_SEED),
        scanner_guess=probes.scanner_guess(net, federation, plan),
    )


def _main_arm(scenario: Scenario) -> Arm:
    """The arm whose model the run publishes: the private one where there is one."""
    arms = scenario.scenario.arms
    return next((arm for arm in ("federated-dp", "federated") if arm in arms), arms[0])


def _publish(scenario: Scenario, folder: Path) -> None:
    arm = _main_arm(scenario)
    (folder / "plan.toml").write_text(dump_plan(scenario.plan_for(arm)), encoding="utf-8")
    if arm in _FEDERATED:
        for name in ("model.safetensors", "audit.jsonl"):
            shutil.copyfile(folder / "arms" / arm / name, folder / name)


def _site_reports(
    scenario: Scenario, federation: Federation, record: RunRecord, folder: Path, bars: Board
) -> None:
    arm = _main_arm(scenario)
    if arm not in _FEDERATED:
        return
    ran = record.arms[arm].federation
    plan = scenario.plan_for(arm)
    jobs = [
        _Page(federation, arm, name, plan, folder, ran.threshold if ran else None)
        for name in federation.names
    ]
    with ProcessPoolExecutor(mp_context=CONTEXT) as pool:
        for number, _ in enumerate(pool.map(_site_report, jobs), start=1):
            bars.tick("hospitals' own reports", number, len(jobs))


@dataclass(frozen=True)
class _Page:
    """One hospital's report to be written."""

    federation: Federation
    arm: Arm
    name: str
    plan: Plan
    folder: Path
    threshold: float | None


def _site_report(page: _Page) -> None:
    torch.set_num_threads(1)
    place = page.folder / "sites" / page.name
    place.mkdir(parents=True, exist_ok=True)
    site = arm_site(page.federation, page.arm, page.name)
    net = network(page.folder, page.arm, page.plan)
    shown = Shown("federated", page.threshold)
    write_site_report(build_site_report(site, page.plan, net, shown), place / "report.html")
