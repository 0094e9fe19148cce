"""Whether the report finds the weak scanner that was planted, and whether it accuses any other.

The demo is repeated with other patients. Only the report's own word counts: whatever its section of
weak spots names, by the shared model or by the private one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from common.cli import grid
from server.records import RunRecord
from server.reports.words import weak_spots
from simulations.experiment import run_scenario
from simulations.scanners import SCANNERS, WEAK
from simulations.scenario import HERE, load_scenario

ARMS: Final = ("federated", "federated-dp")
"""The report speaks of weak spots by these two; the others cost time and change nothing in it."""
_SCANNERS: Final = "manufacturer"


@dataclass(frozen=True)
class Weak:
    """A group that the report calls weak."""

    family: str
    name: str
    series: str
    """The model that shows it: `federated`, or `federated-dp` where only the private one does."""


@dataclass(frozen=True)
class Finding:
    """What the report of one seed says."""

    seed: int
    run: str
    weak: tuple[Weak, ...]
    found: bool
    """Whether the planted scanner's manufacturer is among them."""
    wrong: tuple[str, ...]
    """Other manufacturers among them."""


@dataclass(frozen=True)
class Findings:
    """Over all seeds."""

    planted: str
    seeds: tuple[Finding, ...]
    found_always: bool
    wrong_ever: bool

    def table(self) -> Table:
        """One row a seed."""
        rows = (
            (
                one.seed,
                "yes" if one.found else "NO",
                ", ".join(one.wrong) or "none",
                ", ".join(f"{w.family} {w.name} ({w.series})" for w in one.weak) or "nothing",
            )
            for one in self.seeds
        )
        columns = ("seed", "named", "wrongly named", "all that the report calls weak")
        return grid(f"Planted weak scanner: {self.planted}", columns, rows)


def judge(seed: int, record: RunRecord, planted: str) -> Finding:
    """What the report of this record says of the scanner `planted`, a manufacturer."""
    weak = tuple(Weak(s.row.family, s.row.name, s.series) for s in weak_spots(record))
    named = [group.name for group in weak if group.family == _SCANNERS]
    wrong = tuple(sorted(set(named) - {planted}))
    return Finding(seed, record.run, weak, planted in named, wrong)


def weak_scanner(
    seeds: Iterable[int],
    out: Path,
    changes: Mapping[str, Any] | None = None,
    begun: Callable[[Path], None] = lambda _folder: None,
) -> Findings:
    """Run the demo's hospitals with each seed and read each report.

    Args:
        seeds: of the patients, one run each.
        out: keeps `metrics.json`, `report.html` and `arms/` of each run; the virtual hospitals are removed.
        changes: of the scenario: `rounds` and the keys of `[scenario]`.
        begun: told each run's folder.

    Raises:
        ConsiliumError: what ended a run.
    """
    planted = SCANNERS[WEAK].manufacturer
    findings = []
    for seed in seeds:
        scenario = load_scenario(HERE / "demo.toml", **{**(changes or {}), "seed": seed, "arms": ARMS})
        outcome = run_scenario(scenario, out, extras=False, begun=begun)
        shutil.rmtree(outcome.folder / "federation", ignore_errors=True)
        findings.append(judge(seed, outcome.record, planted))
    found, wrong = all(f.found for f in findings), any(f.wrong for f in findings)
    return Findings(planted, tuple(findings), found, wrong)
