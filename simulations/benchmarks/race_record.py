"""What the race of simulators found, and whether its limits are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Final

from simulations.benchmarks.simulators.common_task import Measured

ROUND_LIMIT: Final = 0.85
"""Of the bare loop's round on one thread; 0.70 is what two processes of that loop take (both cores of one machine)."""
STARTUP_LIMIT_S: Final = 3.0
MEMORY_LIMIT: Final = 1.15
"""At the largest number of hospitals, of what the same takes at the smallest: flat, but for what a measurement wavers by."""
OURS_NAME: Final = "consilium, all cores"


@dataclass
class Timed:
    """What one contender took, over all turns."""

    name: str
    turns: list[Measured] = field(default_factory=list)
    absent: str = ""
    """Why it was not timed; empty where it was."""
    rounds: int = 0
    """See `Contender`."""
    sites: int = 0
    """See `Contender`."""

    @property
    def label(self) -> str:
        """Its name, with how often it ran where that is less than the others."""
        of = f", {self.sites} hospitals" if self.sites else ""
        return f"{self.name} ({self.rounds} rounds of one turn{of})" if self.rounds else self.name

    @property
    def startup_s(self) -> float:
        """The median."""
        return median(turn.startup_s for turn in self.turns)

    @property
    def round_s(self) -> float:
        """The median of all rounds but each turn's first, in which libraries are still being loaded."""
        return median(second for turn in self.turns for second in turn.rounds_s[1:] or turn.rounds_s)

    @property
    def best_s(self) -> float:
        """The quickest round."""
        return min(second for turn in self.turns for second in turn.rounds_s)

    @property
    def cpu_s(self) -> float:
        """Processor time of a round, all processes: the least of all turns."""
        return min(turn.cpu_s for turn in self.turns)

    @property
    def memory_mib(self) -> float:
        """The most."""
        return max(turn.memory_mib for turn in self.turns)


@dataclass(frozen=True)
class Race:
    """Everything that was measured."""

    sites: int
    rounds: int
    chosen: int
    cores: int
    contenders: tuple[Timed, ...]
    growing: tuple[tuple[int, Measured], ...] = ()
    """This project at other numbers of hospitals."""

    def ratio(self, timed: Timed) -> float:
        """Median over turns of its median round by the bare loop's in the same turn."""
        bare = self.contenders[0]
        pairs = zip(timed.turns, bare.turns, strict=False)
        return median(median(one.rounds_s[1:]) / median(two.rounds_s[1:]) for one, two in pairs)

    @property
    def ours(self) -> Timed:
        """On all cores."""
        return next(one for one in self.contenders if one.name == OURS_NAME)

    @property
    def passed(self) -> bool:
        """Whether rounds, start-up and memory keep their limits and no peer is ahead."""
        quick = self.ratio(self.ours) <= ROUND_LIMIT and self.ours.startup_s <= STARTUP_LIMIT_S
        return quick and not self.ahead and self.growth <= MEMORY_LIMIT

    @property
    def ahead(self) -> tuple[str, ...]:
        """Peers whose rounds take less than ours."""
        own = ("bare", "consilium")
        peers = [one for one in self.contenders if one.turns and not one.name.startswith(own)]
        return tuple(peer.name for peer in peers if self.ratio(peer) < self.ratio(self.ours))

    @property
    def growth(self) -> float:
        """Memory at the largest number of hospitals, of that at the smallest; 1 where fewer than two were measured."""
        by_count = sorted(self.growing, key=lambda pair: pair[0])
        return by_count[-1][1].memory_mib / by_count[0][1].memory_mib if len(by_count) > 1 else 1.0
