"""Every process killed in the middle of a round, one fault a round, and what the federation made of it.

The figures are measured: from the kill until the process is there again, and until the round that was under way is
complete. At the end the model must be that of a run in which nothing happened, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from client import direct
from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common.audit import verify
from common.checkpoints import load
from common.plan import Plan
from common.types import SiteName
from server.journal import read_federation
from simulations.faults.federation import SERVER, Federation, federation
from simulations.faults.toy import ToyDuties, toy_plan
from simulations.grid import InProcessGrid, run_on

SITES: Final = {"alpha": 100, "beta": 200}
SLOW: Final = "beta"
"""The site that takes longer, so that the other's update is in while it still works."""
PACE_S: Final = {"alpha": 0.5, "beta": 6.0}
"""Seconds that a hospital trains."""
_ROUND_S: Final = 180.0


@dataclass(frozen=True)
class Fault:
    """One process of one side, killed at one moment of a round."""

    side: str
    what: str
    moment: str
    """`training`: both hospitals are asked and the slow one works; `half`: the other's update is in already."""


@dataclass(frozen=True)
class Happened:
    """What became of a round with a fault in it."""

    fault: Fault
    round: int
    back_s: float | None
    """Until the process was there again; None for one that is started for each question only."""
    complete_s: float
    """Until the round was complete, the slow hospital's work included."""
    attempts: int
    """Times the run was handed to Flower because of it."""


FAULTS: Final = tuple(
    Fault(side, what, moment)
    for side, what in (
        (SERVER, "superlink"),
        (SERVER, "serverapp"),
        (SERVER, "executor"),
        (SERVER, "supervisor"),
        (SLOW, "service"),
        (SLOW, "node"),
        (SLOW, "executor"),
        (SLOW, "clientapp"),
        (SLOW, "supervisor"),
    )
    for moment in ("training", "half")
)


SECURED: Final = tuple(
    Fault(side, what, "half")
    for side, what in (
        (SERVER, "edge"),
        (SERVER, "api"),
        (SLOW, "tunnel"),
        (SLOW, "node"),
        (SLOW, "supervisor"),
    )
)
"""Of a federation with TLS: what plain loopback does not have, and a node that has a key of its own."""


@dataclass(frozen=True)
class Result:
    """All faults of one run."""

    rows: tuple[Happened, ...]
    same_bits: bool
    """Whether the model is that of an undisturbed run."""
    everybody: bool
    """Whether every site is in every round."""
    twice: int
    """Updates that the log admits more than once; must be 0."""


def _untold(_row: Happened) -> None:
    """Nobody watches."""


def run(
    folder: Path,
    faults: Sequence[Fault],
    told: Callable[[Happened], None] = _untold,
    *,
    secured: bool = False,
) -> Result:
    """Make the faults happen, each in a round of its own.

    Args:
        folder: empty; everything of the federation lies there afterwards.
        faults: in this order.
        told: called after each round with a fault.
        secured: as `simulations.faults.federation.federation`.

    Raises:
        FederationError: code `timeout` when the federation did not go on.
    """
    plan = toy_plan(sites=list(SITES), rounds=len(faults) + 1)
    with federation(folder, SITES, secured=secured) as made:
        for site, seconds in PACE_S.items():
            made.pace(site, seconds)
        study = made.submit(plan)
        rows = []
        for number, fault in enumerate(faults, start=1):
            rows.append(_hurt(made, study, number, fault))
            told(rows[-1])
        for site in SITES:
            made.pace(site, 0.0)
        made.until(lambda: made.state(study) == "completed", "the end of the run", _ROUND_S)
        return _judged(tuple(rows), made, study, undisturbed(folder / "undisturbed", plan, SITES))


def undisturbed(folder: Path, plan: Plan, sites: Mapping[str, int]) -> Path:
    """The model of the same plan at the same hospitals, in one process and without any fault."""
    folders = []
    for name, bucket in sites.items():
        site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
        direct.host(SiteService(site, ToyDuties(SiteName(name), site.state, bucket)))
        folders.append(site.folder)
    run_on(InProcessGrid(folders), plan, folder / "out")
    return folder / "out" / "model.safetensors"


def _hurt(made: Federation, study: str, round_: int, fault: Fault) -> Happened:
    made.until(lambda: made.completed(study) == round_ - 1, f"round {round_}", _ROUND_S)
    made.until(lambda: _is_moment(made, study, round_, fault.moment), f"{fault.moment} of round {round_}")
    before, tries = made.sides[fault.side].pid(fault.what), made.attempts(study)
    at = made.kill(fault.side, fault.what)
    back_s = None
    if fault.what != "clientapp":
        made.until(lambda: made.sides[fault.side].pid(fault.what) not in (None, before), fault.what)
        back_s = (datetime.now(UTC) - at).total_seconds()
    made.until(lambda: made.completed(study) >= round_, f"the end of round {round_}", _ROUND_S)
    complete = (_completed_at(made, study, round_) - at).total_seconds()
    return Happened(fault, round_, back_s, complete, made.attempts(study) - tries)


def _is_moment(made: Federation, study: str, round_: int, moment: str) -> bool:
    if not made.at_work(SLOW):
        return False
    return moment == "training" or any(
        e["event"] == "update.admitted" and e["fields"]["round"] == round_ for e in made.events(study)
    )


def _completed_at(made: Federation, study: str, round_: int) -> datetime:
    return next(
        datetime.fromisoformat(e["time"])
        for e in made.events(study)
        if e["event"] == "round.completed" and e["fields"]["round"] == round_
    )


def _judged(rows: tuple[Happened, ...], made: Federation, study: str, clean: Path) -> Result:
    home = made.home(study)
    record = read_federation(home / "federation.json")
    verify(home / "audit.jsonl")
    one, two = load(home / "model.safetensors").arrays, load(clean).arrays
    admitted = Counter(
        (e["fields"]["site"], e["fields"]["round"])
        for e in made.events(study)
        if e["event"] == "update.admitted"
    )
    return Result(
        rows,
        same_bits=list(one) == list(two) and all(one[n].tobytes() == two[n].tobytes() for n in one),
        everybody=all(set(r.sites) == set(SITES) for r in record.rounds) and not record.subset,
        twice=sum(count > 1 for count in admitted.values()),
    )


def table(result: Result) -> str:
    """The matrix as a table of Markdown."""
    lines = [
        "| killed | of | while | back after | round complete after | run submitted again |",
        "|---|---|---|---|---|---|",
    ]
    words = {"training": "a hospital trains", "half": "one update is in, one hospital trains"}
    for row in result.rows:
        back = "started for each question" if row.back_s is None else f"{row.back_s:.1f} s"
        side = "the consortium" if row.fault.side == SERVER else "a hospital"
        again = "yes" if row.attempts else "no"
        when = words[row.fault.moment]
        lines.append(f"| {row.fault.what} | {side} | {when} | {back} | {row.complete_s:.1f} s | {again} |")
    return "\n".join(lines)
