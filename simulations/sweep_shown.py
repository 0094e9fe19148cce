"""What a sweep came to, and how it is shown: a table that lives while it runs, a line for each point, a table at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from common.cli import grid

_ROWS: Final = 16
"""Of the live table: a screen's worth."""


@dataclass(frozen=True)
class Figures:
    """What one arm of a point came to."""

    mean_auroc: float | None
    """Over the hospitals that may tell theirs."""
    worst_auroc: float | None
    sites: int
    """How many may."""
    status: str
    subset: bool
    seconds: float


@dataclass(frozen=True)
class Point:
    """One setting of every key, and what it came to."""

    name: str
    settings: dict[str, Any]
    arms: dict[str, Figures]
    plan_digests: dict[str, str]
    code_digest: str
    seconds: float


@dataclass(frozen=True)
class Swept:
    """A whole sweep."""

    scenario: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    missing: tuple[str, ...]
    """Points that were not carried out, or not to their end."""


def table(swept: Swept) -> Table:
    """A line for every point and arm."""
    head = (*swept.keys, "arm", "mean AUROC", "worst", "hospitals", "seconds")
    lines = [
        (
            *(str(point.settings[key]) for key in swept.keys),
            arm,
            *(_shown(value) for value in (of.mean_auroc, of.worst_auroc)),
            f"{of.sites}{', subset' if of.subset else ''}",
            f"{of.seconds:.0f}",
        )
        for point in swept.points
        for arm, of in point.arms.items()
    ]
    title = f"{swept.scenario}: {len(swept.points)} settings"
    return grid(title + (f", {len(swept.missing)} not carried out" if swept.missing else ""), head, lines)


def line(point: Point, done: int, of: int) -> str:
    """What is said of a point when it has ended."""
    settings = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in point.settings.items())
    arms = ", ".join(f"{arm} {_shown(found.mean_auroc)}" for arm, found in point.arms.items())
    return f"{done} of {of}: {settings}: {arms} ({point.seconds:.0f} s)"


class Watched:
    """A sweep in progress, for whoever looks on: its points in their order, those that ended with what they came to."""

    def __init__(self, scenario: str, points: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Nothing runs yet.

        Args:
            scenario: the file's name.
            points: name and settings of each, in the order in which they are begun.
        """
        self._scenario = scenario
        self.points = dict(points)
        self.at_once = 0
        """How many run at the same time."""
        self._ended: dict[str, Point] = {}

    def ended(self, point: Point) -> None:
        """A point ran to its end, now or in an earlier run of the same command."""
        self._ended[point.name] = point

    def drawn(self) -> Table:
        """The points that run, those that ended last, and how many wait; at most a screen's worth of rows."""
        left = [name for name in self.points if name not in self._ended]
        running, waiting = left[: self.at_once], len(left[self.at_once :])
        keys = tuple(next(iter(self.points.values()), {}))
        rows = [(*self._said(name, keys), "runs", *self._found(None)) for name in running[:_ROWS]]
        recent = list(reversed(self._ended.values()))[: _ROWS - len(rows)]
        rows += [(*self._said(one.name, keys), "ended", *self._found(one)) for one in recent]
        title = f"{self._scenario}: {len(self._ended)} of {len(self.points)} settings ended, {len(running)} run, {waiting} wait"
        heads = (*(key.rpartition(".")[2] for key in keys), "", "mean AUROC", "worst", "seconds")
        return grid(title, heads, rows)

    def _said(self, name: str, keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(self.points[name][key]) for key in keys)

    @staticmethod
    def _found(point: Point | None) -> tuple[str | None, ...]:
        """One line for each arm: mean and worst AUROC; and the seconds of all."""
        if point is None:
            return None, None, None
        means = [f"{arm} {_shown(of.mean_auroc)}" for arm, of in point.arms.items()]
        worst = [_shown(of.worst_auroc) for of in point.arms.values()]
        return "\n".join(means), "\n".join(worst), f"{point.seconds:.0f}"


def _shown(value: float | None) -> str:
    return "suppressed" if value is None else f"{value:.3f}"
