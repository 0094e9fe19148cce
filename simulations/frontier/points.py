"""The settings of a sweep, and what each of them left: plain records, the only source of the page's numbers."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from common.checkpoints import write_whole
from common.messages import Estimate
from common.plan import Plan
from simulations.scenario import Part, Scenario

SCHEMA: Final = "consilium/frontier/1"


@dataclass(frozen=True)
class Point:
    """One setting."""

    part: Part
    """What may learn."""
    views: int
    """K: images or augmented views of a patient in one step."""
    epsilon: float | None
    """None: without privacy."""

    @property
    def name(self) -> str:
        """Also the folder of what it leaves."""
        budget = "open" if self.epsilon is None else f"eps{self.epsilon:g}"
        return f"{self.part}-k{self.views}-{budget}"


@dataclass(frozen=True)
class PointRecord:
    """What was measured of one setting."""

    point: Point
    network: str
    trainable: int
    """Numbers that may learn, and that the noise is added to."""
    noise: float | None
    """sigma, in units of the clip; None without privacy."""
    sites: dict[str, Estimate | None]
    """AUROC of each hospital's own test patients; None where it was held back or has no meaning."""
    patients: dict[str, int | None]
    """Test patients behind it; None where a cell was held back."""
    mean: Estimate | None
    """Plain mean over the hospitals that trained."""
    spent: float | None
    """Epsilon of the patient who spent most; None without privacy."""
    subset: bool
    seconds: float
    plan_digest: str
    code_digest: str


@dataclass(frozen=True)
class FrontierRecord:
    """A whole sweep."""

    name: str
    question: str
    created: str
    """UTC, ISO 8601, of the last point."""
    seed: int
    source: str
    """Where labels come from, in the plan's words."""
    virtual: bool
    rounds: int
    sampling_rate: float
    steps_per_round: int
    delta: float
    confidence: float
    points: tuple[PointRecord, ...] = ()
    missing: tuple[str, ...] = ()
    """Settings that are still to be run."""
    schema: str = field(default=SCHEMA)


def points_of(scenario: Scenario) -> list[Point]:
    """Every setting of a sweep, the dearest first.

    Raises:
        PlanError: where a setting makes no good plan.
        ValueError: the scenario has no `[frontier]`.
    """
    if scenario.frontier is None:
        raise ValueError("a scenario without [frontier] has no points")
    frontier = scenario.frontier
    points = [
        Point(part, views, None if math.isinf(epsilon) else epsilon)
        for views in sorted(frontier.images_per_patient, reverse=True)
        for part in reversed(frontier.part)
        for epsilon in frontier.epsilons
    ]
    for point in points:
        plan_of(scenario, point)
    return points


def plan_of(scenario: Scenario, point: Point) -> Plan:
    """The plan of one setting.

    Raises:
        PlanError: with every mistake.
    """
    frontier = scenario.frontier
    own = frontier.part[point.part] if frontier else {}
    last: dict[str, dict[str, Any]] = {
        "model": {"trainable": point.part},
        "training": {"images_per_patient": point.views},
    }
    if point.epsilon is None:
        return scenario.plan_with("federated", (own, last), point.name)
    private = frontier.private.get(point.part, {}) if frontier else {}
    last["privacy"] = {"epsilon": point.epsilon}
    return scenario.plan_with("federated-dp", (own, private, last), point.name)


def digest_of(scenario: Scenario) -> str:
    """A short name of everything the scenario says: the same file goes on where it stopped, another begins anew."""
    text = json.dumps(asdict(scenario), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def keep(record: PointRecord, path: Path) -> None:
    """Write what one setting left, whole or not at all."""
    write_whole(path, json.dumps(asdict(record), indent=1, sort_keys=True).encode())


def kept(path: Path) -> PointRecord | None:
    """What an earlier run left of this setting; None where it did not finish."""
    try:
        return TypeAdapter(PointRecord).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
