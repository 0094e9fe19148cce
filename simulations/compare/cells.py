"""What one way left with one seed, and what all of them say together: plain records, the page's only source."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Final

from pydantic import TypeAdapter, ValidationError

from common.checkpoints import write_whole
from common.messages import Estimate
from simulations.compare.ways import BASE
from simulations.splits import corrected_mean

SCHEMA: Final = "consilium/compare/1"


@dataclass(frozen=True)
class Pair:
    """Two hospitals under one model."""

    one: str
    other: str
    gap: float
    """AUROC of the one less that of the other."""
    p: float
    """Of the permutation test: how often chance alone gives a gap as large, of either sign."""


@dataclass(frozen=True)
class Cell:
    """One way, one seed."""

    way: str
    seed: int
    sites: dict[str, float | None]
    """AUROC on each hospital's own test patients; None where it was held back or has no meaning."""
    ece: dict[str, float | None]
    """Expected calibration error, debiased, of the same."""
    external: tuple[str, ...] = ()
    """Hospitals that did not train; they count in neither mean nor worst."""
    sensitivity: dict[str, float | None] = field(default_factory=dict)
    """At the one threshold of all hospitals."""
    specificity: dict[str, float | None] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    """Every two hospitals that trained."""
    read: dict[str, float] = field(default_factory=dict)
    """Balanced accuracy with which the hospital is told from `pixels`, `features` and `score`."""
    model: str = "federated"
    """Whose figures these are: of the shared model, or of each hospital's own."""
    rounds: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    """Of one core."""
    methods: str = ""
    plan_digest: str = ""
    code_digest: str = ""
    failed: str = ""
    """The code of what ended it; then there are no figures, and it is tried again next time."""

    @property
    def mean(self) -> float | None:
        """Plain mean over the hospitals that trained."""
        known = self._known
        return fmean(known) if known else None

    @property
    def worst(self) -> float | None:
        """Of the hospital that is served worst."""
        return min(self._known, default=None)

    @property
    def calibration(self) -> float | None:
        """Mean calibration error over the hospitals that trained."""
        known = [e for name, e in self.ece.items() if e is not None and name not in self.external]
        return fmean(known) if known else None

    @property
    def _known(self) -> list[float]:
        return [a for name, a in self.sites.items() if a is not None and name not in self.external]


@dataclass(frozen=True)
class Row:
    """One way over all seeds; every interval is of the mean over seeds."""

    way: str
    seeds: int
    mean: Estimate | None
    worst: Estimate | None
    calibration: Estimate | None
    mean_change: Estimate | None
    """Paired difference to FedAvg."""
    worst_change: Estimate | None
    rounds: int
    bytes: float
    """Both ways, mean over seeds."""
    seconds: float
    """Of one core, mean over seeds."""
    model: str
    refused: str = ""
    """Why the plan was refused; then there are no figures."""
    failed: dict[str, str] = field(default_factory=dict)
    """Seed to the code of what ended it."""


@dataclass(frozen=True)
class Compared:
    """The whole comparison."""

    name: str
    question: str
    created: str
    """UTC, ISO 8601."""
    seeds: tuple[int, ...]
    virtual: bool
    source: str
    """Where labels come from, in the plan's words."""
    hospitals: tuple[str, ...]
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]
    missing: tuple[str, ...] = ()
    """Ways and seeds that were not run yet."""
    external: tuple[str, ...] = ()
    """Those of the hospitals that did not train."""
    ratio: float = 0.0
    """Test to training patients where seeds split the same patients anew; 0 where each seed has its own."""
    raw: float | None = None
    """Balanced accuracy with which the hospital is told from files of real images as they are, at 32 pixels."""
    schema: str = SCHEMA


_ADAPTER: Final = TypeAdapter(Cell)


def keep(cell: Cell, path: Path) -> None:
    """Write a finished cell, whole or not at all."""
    write_whole(path, json.dumps(asdict(cell), indent=1, sort_keys=True).encode())


def kept(path: Path, plan_digest: str) -> Cell | None:
    """A finished cell of this plan; None where there is none, or it is of another plan."""
    try:
        found = _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.plan_digest == plan_digest and not found.failed else None


def row(way: str, cells: Sequence[Cell], base: Sequence[Cell], ratio: float) -> Row:
    """One way's row.

    Args:
        way: its name.
        cells: of this way, one a seed.
        base: of FedAvg.
        ratio: test to training patients where seeds split the same patients anew; 0 where each seed has its own.
    """
    done = [cell for cell in cells if not cell.failed]
    before = {cell.seed: cell for cell in base if not cell.failed}

    def all_of(of: Callable[[Cell], float | None]) -> Estimate | None:
        return over([value for cell in done if (value := of(cell)) is not None], ratio, (0.0, 1.0))

    def change(of: Callable[[Cell], float | None]) -> Estimate | None:
        pairs = [(of(cell), of(before[cell.seed])) for cell in done if cell.seed in before]
        points = [one - other for one, other in pairs if one is not None and other is not None]
        return over(points, ratio, (-1.0, 1.0)) if way != BASE else None

    return Row(
        way=way,
        seeds=len(done),
        mean=all_of(lambda cell: cell.mean),
        worst=all_of(lambda cell: cell.worst),
        calibration=all_of(lambda cell: cell.calibration),
        mean_change=change(lambda cell: cell.mean),
        worst_change=change(lambda cell: cell.worst),
        rounds=max((cell.rounds for cell in done), default=0),
        bytes=fmean([cell.bytes_up + cell.bytes_down for cell in done]) if done else 0.0,
        seconds=fmean([cell.seconds for cell in done]) if done else 0.0,
        model=done[0].model if done else "",
        failed={str(cell.seed): cell.failed for cell in cells if cell.failed},
    )


def over(points: Sequence[float], ratio: float, within: tuple[float, float]) -> Estimate | None:
    """Mean over seeds with its interval; None of none.

    Args:
        points: one a seed.
        ratio: test to training patients where seeds split the same patients anew; 0 where each seed has its own.
        within: what the figure can be; the interval is cut there.
    """
    if not points:
        return None
    found = corrected_mean(points, ratio)
    return Estimate(found.value, max(found.low, within[0]), min(found.high, within[1]))
