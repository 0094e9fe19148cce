"""A walk through every power failure of a recorded process: what the walks of ledger, masks and analyses share."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.client.disk import Disk, lay_out
from tests.client.strace import Op

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
"""Where states are laid out: what survives which sync is the model's to say, so the real disk need not wait."""
_LINES = 12


@dataclass
class Count:
    """How far a walk went."""

    points: int = 0
    """Operations after which the power failed."""
    states: int = 0
    """What these failures could leave, each looked at."""


@dataclass
class Found(Count):
    """What was wrong in the states of a walk; each line names its place."""

    changed: list[str] = field(default_factory=list)
    """What was told before and would be told otherwise, or is not known any more."""
    lawless: list[str] = field(default_factory=list)
    """Laws that would not hold any more, such as a second mask for one update."""
    stuck: list[str] = field(default_factory=list)
    """Work that could not go on."""

    @property
    def wrong(self) -> list[str]:
        """Everything."""
        return [*self.changed, *self.lawless, *self.stuck]

    def told(self, what: str, seconds: float) -> str:
        """The walk in one line, and the first things that were wrong."""
        wrong = f"changed {len(self.changed)}, lawless {len(self.lawless)}, stuck {len(self.stuck)}"
        head = f"{what}: {self.points} points, {self.states} states, {wrong}, {seconds:.1f} s\n"
        return head + "".join(f"  {line}\n" for line in self.wrong[:_LINES])


@dataclass(frozen=True)
class Failing:
    """A power supply that fails after every operation."""

    disk: Disk
    """As it was before the first of them."""
    samples: int
    """Pairs of states drawn at random of each failure, whole and torn writes, beside the two extremes."""
    seed: int = 0

    def each(
        self, ops: Iterable[Op], mark: Callable[[str], None], judge: Callable[[Path, str], None], count: Count
    ) -> None:
        """Lay every state out and have it judged.

        Args:
            ops: what the process did, in order; its marks are no operations.
            mark: is told of a mark.
            judge: is given the folder of a state, and words for its place.
            count: is counted up.
        """
        chance = random.Random(self.seed)
        for op in ops:
            if op.kind == "mark":
                mark(op.path)
                continue
            self.disk.do(op)
            count.points += 1
            place = f"after operation {count.points} ({op.kind} {op.path})"
            for state in self.disk.states(chance, self.samples):
                count.states += 1
                with tempfile.TemporaryDirectory(dir=MEMORY) as where:
                    judge(lay_out(state, Path(where)), place)
