"""A study that a federation carried out, as the record from which the consortium's report is made.

Of a simulation `metrics.json` is written when it ends, with every arm beside the others. A federation has one arm, and what it
left is in the study's folder: the record (`server.journal`), the plan and the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from common import audit
from common.errors import FederationError
from common.plan import Plan, dump_plan, load_plan
from server.journal import COMPLETED, read_federation
from server.records import ArmRecord, FederationRecord, RunRecord

_ENDED: Final = "run.ended"


def record_of(home: Path) -> RunRecord:
    """What the study in this folder came to.

    Args:
        home: holds `federation.json`, `plan.toml` and `audit.jsonl`.

    Raises:
        FederationError: code `run-unfinished`: it did not complete, and no report is made from half a run; or
            `run-analysis`: it counted and trained nothing.
        PlanError, StorageError: its plan or its record cannot be read.
    """
    ended, plan = read_federation(home / "federation.json"), load_plan(home / "plan.toml")
    if plan.surveys:
        raise FederationError(
            home.name,
            "it is an analysis: it trained no model",
            "Read the page that `consilium-server survey` wrote",
            code="run-analysis",
        )
    if ended.status != COMPLETED:
        raise FederationError(
            home.name,
            f"it has not completed: {ended.status}",
            "Wait for its end, or submit it again: it goes on where it stopped",
            code="run-unfinished",
        )
    return _record(ended, plan, _ended_at(home / "audit.jsonl"))


def _record(ended: FederationRecord, plan: Plan, at: str) -> RunRecord:
    arm = "federated-dp" if ended.private else "federated"
    return RunRecord(
        run=ended.run,
        created=at,
        study=plan.study.name,
        question=plan.study.question,
        plan_digest=ended.plan_digest,
        code_digest=ended.code_digest,
        seed=plan.training.seed,
        simulated=plan.labels.source == "synthetic",
        arms={arm: ArmRecord(arm, ended.sites, ended, sum(one.seconds for one in ended.rounds))},
        intake=ended.intake,
        external=tuple(site for site in ended.registered if not ended.weights.get(site)),
        plan_toml=dump_plan(plan),
    )


def _ended_at(log: Path) -> str:
    """UTC, ISO 8601; of the last end in the log, because a study may be submitted again."""
    times = [str(line["time"]) for line in audit.read(log) if line.get("event") == _ENDED]
    return times[-1] if times else ""
