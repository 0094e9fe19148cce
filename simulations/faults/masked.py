"""Masked rounds between real processes: a hospital goes in the middle of one, and the server is killed in the same.

At the end the model must be, to the bit, that of the same plan in one process, in which the same hospital vanished at the
same stage: the sum over the survivors is exact, whatever was killed and started again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from client.membership import load_membership
from client.policy import Policy
from client.service import SiteService
from client.site import Site, init_site
from common import wire
from common.audit import verify
from common.checkpoints import load
from common.messages import Kind
from common.plan import Plan
from common.types import SiteName
from common.witness import genuine
from server.journal import read_federation
from server.records import FederationRecord
from server.sightings import read_sighting
from simulations.enrolment import enrol
from simulations.faults.federation import SERVER, Federation, federation
from simulations.faults.toy import ToyDuties, toy_plan
from simulations.grid import InProcessGrid, run_on

SITES: Final = {"alpha": 100, "beta": 200, "delta": 50, "gamma": 100}
LEAVES: Final = "gamma"
"""The hospital that vanishes while it trains: its keys and shares are out, its masks are in everybody's updates."""
_LONG_S: Final = 600.0
"""Seconds that its training would take if nobody ended it."""
_WAIT_S: Final = 240.0


@dataclass(frozen=True)
class Result:
    """What a masked run came to."""

    record: FederationRecord
    same_bits: bool
    """Whether the model is that of the run in one process."""
    summed: tuple[int, ...]
    """Hospitals in the sum of each round."""
    attempts: int
    """Times the study was handed to Flower."""
    twice: int
    """Updates that the log admits more than once; must be 0."""
    sworn: tuple[str, ...]
    """Hospitals whose word on their audit log the server holds, genuine; toys keep no ledger, so the server gives none."""
    model: Path


def plan_of(rounds: int) -> Plan:
    """Masked rounds of all hospitals, of whom three must remain; whoever is late has half a minute."""
    return toy_plan(
        sites=list(SITES),
        rounds=rounds,
        least_sites=3,
        aggregation="secure",
        mask_bits=32,
        quorum_sites=3,
        quorum_grace_s=30.0,
        deadline_s=30.0,
    )


def run(folder: Path, *, rounds: int = 2, secured: bool = False) -> Result:
    """Carry a plan out; in its last round a hospital goes for good, and then the ServerApp is killed.

    In every round before, the same hospital's service is killed while it trains, and comes back in time.

    Args:
        folder: empty; everything of the federation lies there afterwards.
        rounds: at least one.
        secured: as `simulations.faults.federation.federation`.

    Raises:
        FederationError: code `timeout` when the federation did not go on.
    """
    plan = plan_of(rounds)
    with federation(folder, SITES, secured=secured, enrolled=True) as made:
        made.pace(LEAVES, _LONG_S)
        study = made.submit(plan)
        for number in range(1, rounds):
            _others_in(made, study, number)
            made.pace(LEAVES, 0.0)
            made.kill(LEAVES, "service")
            _round(made, study, number)
            made.pace(LEAVES, _LONG_S)
        _others_in(made, study, rounds)
        made.gone(LEAVES)
        made.kill(SERVER, "serverapp")
        _round(made, study, rounds)
        made.until(lambda: made.state(study).startswith("completed"), "the end of the run", _WAIT_S)
        return _judged(made, study, expected(folder / "in-process", plan))


def expected(folder: Path, plan: Plan) -> Path:
    """The model of the same plan in one process, where the same hospital vanishes in the last round's training."""
    sites = []
    for name, bucket in SITES.items():
        site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
        direct.host(SiteService(site, ToyDuties(SiteName(name), site.state, bucket)))
        sites.append(site)
    enrol(sites, folder / "consortium")
    grid = _Leaving([site.folder for site in sites], plan.federation.rounds)
    run_on(grid, plan, folder / "out")
    return folder / "out" / "model.safetensors"


class _Leaving(InProcessGrid):
    """A grid from which `LEAVES` vanishes when it should train in the last round."""

    def __init__(self, folders: list[Path], last: int) -> None:
        super().__init__(folders)
        self._last = last
        self._node = 1 + [folder.name for folder in folders].index(LEAVES)
        self._gone = False

    def deliver(self, message: Message) -> list[Message]:
        """As ever, until it is gone."""
        said = wire.head(wire.from_records(message.content))
        if message.metadata.dst_node_id == self._node:
            self._gone |= said.get("kind") == Kind.TRAIN.value and said.get("round") == self._last
            if self._gone:
                return [Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=message)]
        return super().deliver(message)


def _others_in(made: Federation, study: str, number: int) -> None:
    """Wait until the masked updates of all others are in and the one still trains."""

    def there() -> bool:
        admitted = [
            event
            for event in made.events(study)
            if event["event"] == "update.admitted" and event["fields"]["round"] == number
        ]
        return made.at_work(LEAVES) and len(admitted) >= len(SITES) - 1

    made.until(there, f"the updates of round {number}", _WAIT_S)


def _round(made: Federation, study: str, number: int) -> None:
    made.until(lambda: made.completed(study) >= number, f"the end of round {number}", _WAIT_S)


def _judged(made: Federation, study: str, reference: Path) -> Result:
    home = made.home(study)
    verify(home / "audit.jsonl")
    record = read_federation(home / "federation.json")
    one, two = load(home / "model.safetensors").arrays, load(reference).arrays
    admitted = Counter(
        (event["fields"]["site"], event["fields"]["round"])
        for event in made.events(study)
        if event["event"] == "update.admitted"
    )
    return Result(
        record,
        same_bits=list(one) == list(two) and all(one[n].tobytes() == two[n].tobytes() for n in one),
        summed=tuple(len(round_.sites) for round_ in record.rounds),
        attempts=made.attempts(study),
        twice=sum(count > 1 for count in admitted.values()),
        sworn=tuple(name for name, site in made.sites.items() if _sworn(made, site)),
        model=home / "model.safetensors",
    )


def _sworn(made: Federation, site: Site) -> bool:
    word, member = read_sighting(made.consortium.folder, site.name).audit, load_membership(site)
    return word is not None and member is not None and genuine(word, member.identity.public)
