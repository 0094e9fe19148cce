"""Whatever can go wrong between processes, one fault a round, and what the federation made of it.

The figures are measured: from the fault until what was hurt is there again, and until the round that was under way is
complete. After each round the model must be that of a run in which nothing happened, to the bit. Where a round does not
complete, its fault is written down as failed and the others are tried in a federation of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from client import direct
from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common.audit import read, verify
from common.errors import ConsiliumError
from common.plan import Plan
from common.types import SiteName
from server.journal import COMPLETED, read_federation
from simulations.faults.cases import ASKED, HALF, REPLY, SITES, SLOW, Fault
from simulations.faults.federation import SERVER, Federation, federation
from simulations.faults.hurt import Hurting, hurting
from simulations.faults.toy import ToyDuties, toy_plan
from simulations.grid import InProcessGrid, run_on

PACE_S: Final = 3.0
"""Seconds that the slow hospital trains on after a fault; the other takes no time."""
_ROUND_S: Final = 240.0
_WAIT_S: Final = 3600.0
"""The plan's patience beyond its deadline, for faults that last."""


@dataclass(frozen=True)
class Happened:
    """What became of a round with a fault in it."""

    fault: Fault
    round: int
    back_s: float
    """From the fault until what was hurt was there again."""
    complete_s: float
    """From then until the round was complete, what the slow hospital still had to work included."""
    attempts: int = 0
    """Times the run was handed to Flower because of it."""
    trainings: int = 1
    """Times the slow hospital trained in this round."""
    kept: bool = False
    """Whether an update that was in was read back from disk."""
    same_bits: bool = False
    """Whether the model after the round is that of an undisturbed run."""
    everybody: bool = False
    """Whether every site is in the round."""
    twice: int = 0
    """Updates of the round that the log admits more than once; must be 0."""
    failed: str = ""
    """Why there is no figure."""

    @property
    def well(self) -> bool:
        """Whether nothing was lost and nothing counted twice."""
        return not self.failed and self.same_bits and self.everybody and not self.twice


@dataclass(frozen=True)
class Result:
    """All faults of one federation."""

    rows: tuple[Happened, ...]
    whole: bool
    """Whether the run came to its end with everybody in it, an audit log that verifies, and the undisturbed model."""

    @property
    def well(self) -> bool:
        """Whether the federation came through everything."""
        return self.whole and all(row.well for row in self.rows)


Told = Callable[[Happened], None]


def _untold(_row: Happened) -> None:
    """Nobody watches."""


def run(folder: Path, faults: Sequence[Fault], told: Told = _untold) -> Result:
    """Make the faults happen in one federation, each in a round of its own; ends early where a round does not complete.

    Args:
        folder: empty; everything of the federation lies there afterwards.
        faults: in this order, all of them with TLS or none.
        told: called after each round with a fault.

    Raises:
        FederationError: code `timeout` when the federation did not come up or the run did not end.
    """
    plan = toy_plan(sites=list(SITES), rounds=len(faults) + 1, longest_wait_s=_WAIT_S)
    clean = undisturbed(folder / "undisturbed", plan, SITES)
    rows: list[Happened] = []
    with (
        federation(folder, SITES, secured=faults[0].secured) as made,
        hurting(made, tuple(faults)) as hurt,
    ):
        hurt.hold()
        study = made.submit(plan)
        for number, fault in enumerate(faults, start=1):
            rows.append(_Round(hurt, study, number, clean).with_(fault))
            told(rows[-1])
            if rows[-1].failed:
                return Result(tuple(rows), whole=False)
        hurt.release()
        made.until(lambda: made.state(study) == COMPLETED, "the end of the run", _ROUND_S)
        return Result(tuple(rows), _is_whole(made, study, clean))


def undisturbed(folder: Path, plan: Plan, sites: Mapping[str, int]) -> dict[int, str]:
    """The digest of the model after each round of the same plan, in one process and without any fault."""
    folders = []
    for name, bucket in sites.items():
        site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
        direct.host(SiteService(site, ToyDuties(SiteName(name), site.state, bucket)))
        folders.append(site.folder)
    run_on(InProcessGrid(folders), plan, folder / "out")
    lines = [e["fields"] for e in read(folder / "out" / "audit.jsonl") if e["event"] == "round.completed"]
    return {line["round"]: line["digest"] for line in lines}


@dataclass
class _Round:
    """One round of a run, and the fault in it."""

    hurt: Hurting
    study: str
    number: int
    clean: Mapping[int, str]

    def with_(self, fault: Fault) -> Happened:
        """Make the fault happen and see what comes of it."""
        try:
            return self._measured(fault)
        except ConsiliumError as error:
            return Happened(fault, self.number, 0.0, 0.0, failed=str(error))

    def _measured(self, fault: Fault) -> Happened:
        made = self.hurt.made
        self._await(fault.moment)
        tries, pid = self._submissions(), made.sides[fault.side].pid(fault.what)
        if fault.moment == REPLY:
            self.hurt.ended_work(self.number)
        at, back = self.hurt.happen(fault, pid, self._go_on)
        completed = made.until(self._completed_at, f"the end of round {self.number}", _ROUND_S)
        self.hurt.hold()
        return Happened(
            fault,
            self.number,
            (back - at).total_seconds(),
            (completed - back).total_seconds(),
            self._submissions() - tries,
            self.hurt.trainings(self.number),
            bool(self._events("update.kept")),
            *self._found(),
        )

    def _go_on(self) -> None:
        self.hurt.made.pace(SLOW, PACE_S)
        self.hurt.release()

    def _await(self, moment: str) -> None:
        made = self.hurt.made
        begun = "survey.completed" if self.number == 1 else "round.completed"
        made.until(lambda: self._events(begun, self.number - 1), f"round {self.number}", _ROUND_S)
        if moment == ASKED:
            return
        made.until(lambda: self.hurt.trains(self.number), f"training in round {self.number}", _ROUND_S)
        if moment in (HALF, REPLY):
            made.until(lambda: self._events("update.admitted"), f"an update of round {self.number}", _ROUND_S)

    def _submissions(self) -> int:
        return self.hurt.made.attempts(self.study)

    def _events(self, event: str, round_: int | None = None) -> list[dict[str, Any]]:
        """Of this round, or of another; the survey has none."""
        wanted = self.number if round_ is None else round_
        return [
            e
            for e in self.hurt.made.events(self.study)
            if e["event"] == event and e["fields"].get("round", 0) == wanted
        ]

    def _completed_at(self) -> datetime | None:
        found = self._events("round.completed")
        return datetime.fromisoformat(found[0]["time"]) if found else None

    def _found(self) -> tuple[bool, bool, int]:
        """Whether the model is the undisturbed one, whether all sites are in it, and how many updates came in twice."""
        (done,) = self._events("round.completed")
        fields = done["fields"]
        sites = [e["fields"]["site"] for e in self._events("update.admitted")]
        same = fields["digest"] == self.clean[self.number]
        return same, set(sites) == set(SITES), len(sites) - len(set(sites))


def _is_whole(made: Federation, study: str, clean: Mapping[int, str]) -> bool:
    home = made.home(study)
    record = read_federation(home / "federation.json")
    verify(home / "audit.jsonl")
    ended = [e["fields"]["digest"] for e in made.events(study) if e["event"] == "round.completed"]
    everybody = all(set(r.sites) == set(SITES) for r in record.rounds) and not record.subset
    return everybody and len(ended) == len(clean) and ended[-1] == clean[max(clean)]


def what_happened(row: Happened) -> str:
    """In words, from what was counted."""
    if row.failed:
        return f"FAILED: {row.failed}"
    words = []
    if row.attempts:
        words.append("the run was submitted again and went on in this round")
    if row.kept:
        words.append("the update that was in was read back")
    words.append("the hospital trained again" if row.trainings > 1 else "the hospital trained once")
    if not row.well:
        words.append("NOT WELL")
    return "; ".join(words)


def table(rows: Sequence[Happened]) -> str:
    """The matrix as a table of Markdown."""
    lines = [
        "| what | of | how | while | what happened | there again after | round complete, after that |",
        "|---|---|---|---|---|---|---|",
    ]
    words = {
        ASKED: "the round's questions go out",
        "training": "a hospital trains",
        HALF: "one update is in, one hospital trains",
        REPLY: "the answer is on its way",
    }
    for row in rows:
        fault = row.fault
        side = "the consortium" if fault.side == SERVER else "a hospital"
        how = f"{fault.way} for {fault.seconds:g} s" if fault.seconds else fault.way
        after = f"{row.complete_s:.1f} s" if row.complete_s > 0 else "before it was there again"
        figures = "| | |" if row.failed else f"| {row.back_s:.1f} s | {after} |"
        head = f"| {fault.what} | {side} | {how} | {words[fault.moment]} "
        lines.append(f"{head}| {what_happened(row)} {figures}")
    return "\n".join(lines)
