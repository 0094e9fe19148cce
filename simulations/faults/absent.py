"""The run to which one with a fault in it is held: whoever was put aside in a round was never there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client import direct
from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common.errors import StorageError
from common.messages import Instruction, Update
from common.plan import Plan
from common.types import SiteName
from simulations.faults.toy import ToyDuties
from simulations.grid import InProcessGrid, run_on


@dataclass
class _Absent(ToyDuties):
    """A hospital that takes part in some rounds only, and says so."""

    rounds: frozenset[int] = frozenset()

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        if instruction.round not in self.rounds:
            raise StorageError("update", "it stays away", "Nothing", code="storage")
        return super().train(instruction, plan)


def expected(folder: Path, plan: Plan, rounds: Sequence[set[str]], sites: Mapping[str, int]) -> Path:
    """The folder of the same run in which whoever was put aside was never there.

    Args:
        folder: empty.
        plan: of the run.
        rounds: for each, who was let in.
        sites: name to public bucket.
    """
    folders = []
    for name, bucket in sites.items():
        site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
        there = frozenset(number for number, sites in enumerate(rounds, start=1) if name in sites)
        direct.host(SiteService(site, _Absent(SiteName(name), site.state, bucket, rounds=there)))
        folders.append(site.folder)
    run_on(InProcessGrid(folders), plan, folder / "out")
    return folder / "out"
