"""A hospital whose work hangs for good in one round: given up at the deadline, ended after the grace, back in the next."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from client.service import GRACE_S
from common.audit import read
from common.checkpoints import load
from common.errors import FederationError
from server.journal import COMPLETED, read_federation
from simulations.faults.absent import expected
from simulations.faults.cases import SITES, SLOW
from simulations.faults.federation import Federation, federation
from simulations.faults.hurt import Hurting
from simulations.faults.toy import toy_plan

DEADLINE_S: Final = 60.0
"""A tenth of it is what the hospital's word that it gave up has for its way."""
_HANGS: Final = 2
_ROUNDS: Final = 3
_WAIT_S: Final = 240.0


@dataclass(frozen=True)
class Hung:
    """What became of it."""

    deadline_s: float
    given_up_s: float
    """From the beginning of the work until the round was complete without it."""
    freed_s: float
    """From the beginning of the work until its process was another."""
    again_s: float
    """From then until the hospital was in a round again."""
    code: str
    """Under which it was put aside."""
    subset: bool
    """Whether the result says that a hospital is missing."""
    told: bool
    """Whether the hospital's own log says that work hung."""
    clean: bool
    """Whether the model is, to the bit, that of the sites which were let in."""

    @property
    def well(self) -> bool:
        """Whether the hospital was ended in time, and all went on without it."""
        freed = self.freed_s < self.deadline_s + GRACE_S + 30.0
        return freed and self.code == "timeout" and self.subset and self.told and self.clean


def run(folder: Path, deadline_s: float = DEADLINE_S) -> Hung:
    """Make a hospital hang in the second of three rounds.

    Args:
        folder: empty; everything of the federation lies there afterwards.
        deadline_s: of the plan.

    Raises:
        FederationError: code `timeout` when the federation did not go on.
    """
    plan = toy_plan(sites=list(SITES), rounds=_ROUNDS, least_sites=1, deadline_s=deadline_s)
    with federation(folder, SITES) as made:
        hurt, side = Hurting(made), made.sides[SLOW]
        study = made.submit(plan)
        made.until(lambda: made.completed(study) >= _HANGS - 1, "the round before", _WAIT_S)
        hurt.hold()
        made.until(lambda: hurt.trains(_HANGS), "the work that hangs", _WAIT_S)
        began, before = time.monotonic(), side.pid("service")
        made.until(lambda: made.completed(study) >= _HANGS, "the round without it", _WAIT_S)
        given_up = time.monotonic() - began
        made.until(lambda: side.pid("service") not in (None, before), "the end of what hangs", _WAIT_S)
        freed = datetime.now().astimezone()
        freed_s = time.monotonic() - began
        hurt.release()
        made.until(lambda: made.state(study).startswith(COMPLETED), "the end of the run", _WAIT_S)
        again = (_in_again(made, study) - freed).total_seconds()
        home = made.home(study)
        record = read_federation(home / "federation.json")
        rounds = [set(done.sites) for done in record.rounds]
        one = load(home / "model.safetensors").arrays
        two = load(expected(folder / "expected", plan, rounds, SITES) / "model.safetensors").arrays
        log = read(made.sites[SLOW].audit)
        return Hung(
            deadline_s,
            given_up,
            freed_s,
            again,
            record.rounds[_HANGS - 1].refused.get(SLOW, ""),
            record.subset,
            any(line["event"] == "duty.hung" for line in log),
            all(one[name].tobytes() == two[name].tobytes() for name in one),
        )


def _in_again(made: Federation, study: str) -> datetime:
    """When the hospital's next update was let in.

    Raises:
        FederationError: code `timeout` when it never was.
    """
    for e in made.events(study):
        fields = e["fields"]
        if e["event"] == "update.admitted" and fields["site"] == SLOW and fields["round"] > _HANGS:
            return datetime.fromisoformat(e["time"])
    raise FederationError(SLOW, "it is in no round again", "Read its log", code="timeout")


def table(row: Hung) -> str:
    """As a table of Markdown."""
    head = (
        "| deadline | grace | round complete without it after | its process ended and there again after "
        "| in a round again, after that | put aside as |\n|---|---|---|---|---|---|"
    )
    figures = f"| {row.given_up_s:.1f} s | {row.freed_s:.1f} s | {row.again_s:.1f} s "
    well = "" if row.well else " NOT WELL"
    return f"{head}\n| {row.deadline_s:g} s | {GRACE_S:g} s {figures}| `{row.code}`{well} |"
