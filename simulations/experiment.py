"""From a scenario to a folder of records and reports.

runs/<id>/plan.toml           the plan of the published model
runs/<id>/model.safetensors   its weights: of `federated-dp` where that arm ran, else of `federated`
runs/<id>/metrics.json        every figure (docs/metrics.md)
runs/<id>/audit.jsonl         the server's log of that run, hash-chained
runs/<id>/report.html         the consortium's report
runs/<id>/sites/<name>/       each hospital's own report, which would stay there
runs/<id>/arms/<arm>/         what each way to train left, its `record.json` first; there even if another failed
runs/<id>/federation/         the virtual hospitals themselves
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from client.files import storage_error
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
from simulations.arms import comparisons, run_arms
from simulations.board import board
from simulations.crew import Crew, crew
from simulations.hospitals.machines import maker
from simulations.prepare import Federation, arm_site, given, passing, prepare
from simulations.prepared import dressed, prepared
from simulations.probes import chests
from simulations.probes import run as probing
from simulations.probes.run import Answer
from simulations.scanners import SCANNERS, WEAK
from simulations.scenario import Arm, Scenario

_FEDERATED: tuple[Arm, ...] = ("federated", "federated-dp")
_MAKERS = ("manufacturer",)
_CHEST_SEED = 0x636865
"""Keeps the probe's patients apart from the training patients of any scenario seed."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: its record and where everything lies."""

    record: RunRecord
    folder: Path


def run_scenario(
    scenario: Scenario,
    out: Path,
    data: Path | None = None,
    *,
    extras: bool = True,
    cache: Path | None = None,
    begun: Callable[[Path], None] = lambda _folder: None,
) -> Outcome:
    """Prepare the hospitals, run every arm, measure, write records and reports.

    Args:
        scenario: what to do.
        out: receives one sub-folder.
        data: the folder of real images, for scenarios of kind `images`.
        extras: whether the hospitals write their own reports and the simulation-only questions are asked.
        cache: where virtual hospitals are kept and found again (`simulations.prepared`); made for this run alone
            when None.
        begun: told the sub-folder, before anything is in it.

    Raises:
        ConsiliumError: what ended the run. No report is made from half a run; what had finished is on disk.
    """
    if scenario.scenario.kind == "images":
        given(scenario, data)  # said before a folder is made
    run, folder = _new_folder(scenario, out)
    begun(folder)
    with passing(folder / "federation"), board() as bars, crew(bars) as hands:
        if cache is not None and scenario.scenario.kind == "virtual":
            federation = dressed(prepared(scenario, cache, hands), folder / "federation")
        else:
            federation = prepare(scenario, folder / "federation", hands, data)
        arms = run_arms(scenario, federation, folder, hands)
        only = _afterwards(scenario, federation, arms, folder, hands) if extras else None
        record = _record(run, scenario, federation, arms, only)
        _publish(scenario, folder)
        write_record(record, folder / "metrics.json")
        write_report(record, folder / "report.html")
    return Outcome(record, folder)


def network(folder: Path, arm: str, plan: Plan) -> Network:
    """The final network of a federated arm, from its checkpoint."""
    rows, columns = plan.input.shape[-2:]
    net = build(plan.model, plan.task.outputs, (rows, columns))
    path = folder / "arms" / arm / "model.safetensors"
    set_arrays(net, checkpoints.load(path, architecture_digest(net)).arrays)
    return net


def _new_folder(scenario: Scenario, out: Path) -> tuple[str, Path]:
    name = scenario.scenario.name
    run = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    try:
        (out / run).mkdir(parents=True)
    except OSError as error:
        raise storage_error(error, "the folder for runs") from None
    return run, out / run


def _record(
    run: str,
    scenario: Scenario,
    federation: Federation,
    arms: dict[str, ArmRecord],
    only: SimulationOnly | None,
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
        simulation_only=only,
        plan_toml=dump_plan(plan),
    )


def _intake(arms: dict[str, ArmRecord]) -> dict[str, IntakeSummary]:
    for arm in arms.values():
        if arm.federation is not None:
            return dict(arm.federation.intake)
    return {}


@dataclass(frozen=True)
class _Finished:
    """A federated model and where it was made: what pages and probes are made from, each in a worker."""

    scenario: Scenario
    federation: Federation
    arm: Arm
    folder: Path
    threshold: float | None
    subset: bool

    @property
    def plan(self) -> Plan:
        return self.scenario.plan_for(self.arm)

    @property
    def net(self) -> Network:
        return network(self.folder, self.arm, self.plan)


def _afterwards(
    scenario: Scenario, federation: Federation, arms: dict[str, ArmRecord], folder: Path, hands: Crew
) -> SimulationOnly | None:
    """Everything that is asked of the published model: the hospitals' own reports and the probes, side by side."""
    arm = _main_arm(scenario)
    ran = arms[arm].federation
    if ran is None:
        return None
    finished = _Finished(scenario, federation, arm, folder, ran.threshold, ran.subset)
    question = _question(finished, arms)
    jobs: list[Callable[[], SimulationOnly | Answer | None]] = list(probing.jobs(question, hands.size))
    if scenario.scenario.kind == "virtual":
        jobs.append(partial(_simulation_only, finished))
    if len(federation.names) <= probing.MOST_ASKED:
        jobs += [partial(_site_report, finished, name) for name in federation.names]
    answers = []
    for number, result in enumerate(hands.do(jobs), start=1):
        hands.bars.tick("reports", number, len(jobs))
        answers.append(result)
    return _with_bias(question, answers)


def _question(finished: _Finished, arms: dict[str, ArmRecord]) -> probing.Question:
    """The bias lab asks the model that the report is about: the one without noise where there is one."""
    arm: Arm = "federated" if "federated" in arms else finished.arm
    ran, setting = arms[arm].federation, finished.scenario.scenario
    federation, omitted = probing.drawn(finished.federation, setting.seed)
    return probing.Question(
        series=arm,
        plan=finished.scenario.plan_for(arm),
        federation=federation,
        out=finished.folder / "arms" / arm,
        seed=setting.seed,
        threshold=0.5 if ran is None or ran.threshold is None else ran.threshold,
        virtual=setting.kind == "virtual",
        omitted=omitted,
    )


def _with_bias(
    question: probing.Question, answers: Sequence[SimulationOnly | Answer | None]
) -> SimulationOnly | None:
    only = next((a for a in answers if isinstance(a, SimulationOnly)), SimulationOnly())
    asked = [a for a in answers if a is not None and not isinstance(a, SimulationOnly)]
    if not asked:
        return only if only != SimulationOnly() else None
    bias = probing.assembled(question, asked)
    makers = len({g.level for g in bias.findings.groups if g.family == _MAKERS}) if bias.findings else 0
    return replace(only, bias=bias, scanner_guess=chests.guesses(bias.probes, makers) if makers else ())


def _simulation_only(finished: _Finished) -> SimulationOnly:
    plan, net, federation = finished.plan, finished.net, finished.federation
    makers = {
        name: ", ".join(sorted({maker(s) for w in spec.scanners.values() for s in w}))
        for name, spec in federation.specs.items()
    }
    return SimulationOnly(
        scanner_of_site=makers,
        planted_weak_scanner=SCANNERS[WEAK].manufacturer,
        same_chest=chests.same_chest(net, plan, finished.scenario.scenario.seed ^ _CHEST_SEED),
    )


def _site_report(finished: _Finished, name: str) -> None:
    place = finished.folder / "sites" / name
    place.mkdir(parents=True, exist_ok=True)
    site = arm_site(finished.federation, finished.arm, name)
    shown = Shown("federated", finished.threshold, finished.subset)
    write_site_report(build_site_report(site, finished.plan, finished.net, shown), place / "report.html")


def _main_arm(scenario: Scenario) -> Arm:
    """The arm whose model the run publishes: the private one where there is one."""
    arms = scenario.scenario.arms
    return next((arm for arm in ("federated-dp", "federated") if arm in arms), arms[0])


def _publish(scenario: Scenario, folder: Path) -> None:
    arm = _main_arm(scenario)
    checkpoints.write_whole(folder / "plan.toml", dump_plan(scenario.plan_for(arm)).encode())
    if arm in _FEDERATED:
        for name in ("model.safetensors", "audit.jsonl"):
            checkpoints.write_whole(folder / name, (folder / "arms" / arm / name).read_bytes())
