"""What an analysis leaves: `analysis.json`, the only source of every number on its page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from common.checkpoints import write_whole
from common.errors import InputError

SCHEMA: Final = "consilium/analysis/1"
Cells = tuple[tuple[int | None, ...], ...]
"""[label][bin]; None where it is held back."""


@dataclass(frozen=True)
class Bins:
    """One axis and its public bins."""

    axis: str
    bins: tuple[str, ...]
    ordered: bool


@dataclass(frozen=True)
class Part:
    """The counts of one hospital, or of several together."""

    sites: tuple[str, ...]
    tables: dict[str, Cells]
    noisy: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return self.sites[0] if len(self.sites) == 1 else f"{len(self.sites)} hospitals together"


@dataclass(frozen=True)
class AnalysisRecord:
    """One analysis."""

    run: str
    created: str
    """UTC, ISO 8601."""
    study: str
    question: str
    plan_digest: str
    code_digest: str
    simulated: bool
    labels: tuple[str, ...]
    positive: tuple[int, ...]
    axes: tuple[Bins, ...]
    min_cell: int
    own: tuple[Part, ...] = ()
    """Hospitals that show cells under their own name, sorted."""
    summed: Part | None = None
    """All others together; None where nobody was asked."""
    wanted: tuple[str, ...] = ()
    """Everybody who was asked."""
    refused: dict[str, str] = field(default_factory=dict)
    """Site to code, of those who are in none of the counts."""
    epsilon: float | None = None
    delta: float | None = None
    noise: float | None = None
    """Standard deviation of the noise in each cell of the sum, in patients."""
    schema: str = SCHEMA

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part there is."""
        return (*self.own, *([] if self.summed is None else [self.summed]))

    @property
    def missing(self) -> tuple[str, ...]:
        """Who was asked and is in no count."""
        there = {site for part in self.parts for site in part.sites}
        return tuple(site for site in self.wanted if site not in there)


_ADAPTER: Final = TypeAdapter(AnalysisRecord)


def write_analysis(record: AnalysisRecord, path: Path) -> None:
    """Write a record, whole or not at all."""
    write_whole(path, json.dumps(asdict(record), indent=1, sort_keys=True).encode())


def read_analysis(path: Path) -> AnalysisRecord:
    """Read a record back.

    Raises:
        InputError: it is not there, or is none.
    """
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise InputError(path.name, "it is not the record of an analysis", "Give an analysis.json") from None
