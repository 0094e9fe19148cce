"""What `consilium-sim federation` tells: each step as it begins, and at the end what was seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What was seen."""

    folder: Path
    study: str
    sites: tuple[str, ...]
    rounds: int
    subset: bool
    killed: str
    back_s: float
    """From the kill until the process was there again."""
    complete_s: float
    """From the kill until the round that was under way was complete."""
    seconds: dict[str, float]
    """Of each step."""


def table(outcome: Outcome) -> str:
    """What was seen, in words, and where to look next."""
    everybody = "a subset of the hospitals" if outcome.subset else "every hospital"
    home, program = outcome.folder, Path(sys.executable).parent
    run = home / "consortium" / "runs" / outcome.study
    lines = ["", "Seconds of each step:"]
    lines += [f"{seconds:6.1f} s  {name}" for name, seconds in outcome.seconds.items()]
    lines += [
        "",
        f"{outcome.study}: {outcome.rounds} rounds with {everybody} ({', '.join(outcome.sites)}).",
        f"Killed while it worked: the {outcome.killed}; there again after {outcome.back_s:.1f} s.",
        f"Its round was complete {outcome.complete_s:.1f} s after the kill.",
        "",
        "What there is now, as either side sees it:",
        f"  {program}/consilium-server status --folder {home}/consortium",
        f"  {program}/consilium-server report {run}",
        f"  {program}/consilium-server audit verify {run}/audit.jsonl",
        f"  {program}/consilium-site status --site {home}/hospitals/{outcome.sites[0]}",
        f"The model is {run}/model.safetensors, and what the processes said is in {home}/*.log.",
        f"Nothing runs any more: delete {home} when you have seen enough.",
    ]
    return "\n".join(lines)


class Times:
    """How long each step took.

    Args:
        say: told of each step as it begins.
    """

    def __init__(self, say: Say) -> None:
        self.seconds: dict[str, float] = {}
        self._say = say

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step; its time is kept when it ends well."""
        self._say(f"{name} …")
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
