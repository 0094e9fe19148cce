"""Virtual hospitals counted and compared by the same server and client code as real ones.

runs/<id>/federation/     the hospitals
runs/<id>/plan.toml       the plan of the analysis
runs/<id>/analysis.json   the record; survey.html, the page
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.service import SiteService
from common import plan as plans
from common.errors import InputError
from common.plan import Plan
from server.analytics.page import PAGE, write_page
from server.analytics.records import AnalysisRecord, read_analysis
from server.analytics.run import RECORD
from server.commands.survey import checked
from simulations.board import board
from simulations.crew import crew
from simulations.enrolment import enrol
from simulations.grid import run_in_process
from simulations.hospitals.machines import maker
from simulations.prepare import Federation, arm_site, passing, prepare
from simulations.scenario import Scenario

_ARM = "survey"
_MOST_MAKERS = 20


@dataclass(frozen=True)
class Choice:
    """Who shows cells of its own, and how exact a sum is."""

    summed: tuple[str, ...] = ()
    """Hospitals that are in the sum only; `*`: all."""
    epsilon: float = 0.0


def run_survey(
    scenario: Scenario,
    out: Path,
    data: Path | None = None,
    choice: Choice | None = None,
    begun: Callable[[Path], None] = lambda _folder: None,
) -> tuple[AnalysisRecord, Path]:
    """Make the hospitals of a scenario, count and compare them; gives the record and its folder.

    Args:
        scenario: whose hospitals.
        out: receives one sub-folder.
        data: the folder of real images, for scenarios of kind `images`.
        choice: who shows own cells; all when not given.
        begun: told the sub-folder, before much is in it.

    Raises:
        ConsiliumError: what ended it.
    """
    now = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = out / f"survey-{scenario.scenario.name}-{now}"
    folder.mkdir(parents=True)
    begun(folder)
    with passing(folder / "federation"), board() as bars, crew(bars) as hands:
        federation = prepare(scenario, folder / "federation", hands, data)
        return counted(federation, analysis_of(scenario, federation, choice or Choice()), folder), folder


def analysis_of(scenario: Scenario, federation: Federation, choice: Choice) -> Plan:
    """The plan of the analysis of a scenario's hospitals.

    Raises:
        InputError: a hospital that is not there.
        PlanError: fewer than three hospitals would be summed, or noise is asked for beside own cells.
    """
    base = scenario.plan_for(scenario.scenario.arms[0])
    strangers = sorted(set(choice.summed) - {*federation.names, "*"})
    if strangers:
        raise InputError(
            f"hospital {strangers[0]}",
            "the scenario has none of that name",
            f"Choose of {', '.join(federation.names)}",
        )
    hidden = federation.names if "*" in choice.summed else choice.summed
    makers = {maker(s) for one in federation.specs.values() for w in one.scanners.values() for s in w}
    plan = plans.replace(
        base,
        federation={"sites": list(federation.names), "sites_per_round": 0},
        analytics={
            "survey": True,
            "own": [name for name in federation.names if name not in hidden],
            "manufacturers": sorted(makers)[:_MOST_MAKERS],
            "epsilon": choice.epsilon,
        },
    )
    checked(plan, "the analysis")
    return plan


def counted(federation: Federation, plan: Plan, out: Path) -> AnalysisRecord:
    """Carry the analysis out in this process."""
    sites = [arm_site(federation, _ARM, name) for name in federation.names]
    enrol(sites, federation.folder / "arms" / _ARM / "consortium")
    run_in_process([SiteService(site) for site in sites], plan, out)
    record = read_analysis(out / RECORD)
    write_page(record, out / PAGE)
    return record
