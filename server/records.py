"""What a run leaves behind, as records: the only source of every number in a report (law 8).

`metrics.json` is `RunRecord` as JSON; `docs/metrics.md` documents it key by key.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from common.checkpoints import write_whole
from common.messages import Comparison, Estimate, IntakeSummary, SiteMetrics
from server.records_bias import Bias

SCHEMA = "consilium/metrics/1"


@dataclass(frozen=True)
class SiteRound:
    """One site in one round, as the server saw it."""

    weight: int
    update_norm: float | None
    """None under masks: nobody but the site can measure it."""
    loss: float | None
    """Validation loss of the model the round began with."""
    auroc: float | None
    epsilon: float | None
    scaled: bool = False
    """Whether the update was longer than the round's bound and counted at that length."""
    objective: float | None = None
    """Training loss of that model, where the method weights sites by it."""


@dataclass(frozen=True)
class RoundRecord:
    """One completed round."""

    round: int
    seconds: float
    bytes_up: int
    bytes_down: int
    sites: dict[str, SiteRound]
    refused: dict[str, str]
    """Site to code, for replies turned away, refusals and silence (`no-reply`)."""
    chosen: tuple[str, ...] = ()
    """Who was to train in it, where the plan has only some do so in a round; empty: every expected site."""
    masked: bool = False
    """Whether the server saw the sum of the updates alone; the four figures below are sums under the same masks."""
    loss: float | None = None
    """Mean validation loss of the model the round began with."""
    auroc: float | None = None
    judged: int = 0
    """Sites that held the model the round began with against the one before, on their validation patients."""
    worse: int = 0
    rolled_back: bool = False
    """Whether most of them found it worse: then this round's sum was thrown away, and the model before came back."""


@dataclass(frozen=True)
class FederationRecord:
    """One federated run: what `server/rounds` wrote down."""

    run: str
    plan_digest: str
    code_digest: str
    strategy: str
    private: bool
    expected: tuple[str, ...]
    registered: tuple[str, ...]
    trained: tuple[str, ...]
    """Sites that trained in every completed round."""
    subset: bool
    status: str
    """`completed`, or the code of the error that ended it."""
    rounds: tuple[RoundRecord, ...] = ()
    threshold: float | None = None
    sites: dict[str, SiteMetrics] = field(default_factory=dict)
    intake: dict[str, IntakeSummary] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Site to code, for those that were turned away, refused or stayed silent before the first round."""
    weights: dict[str, int] = field(default_factory=dict)
    """Site to the public bucket of training patients it declared; what a run goes on with after a restart."""


@dataclass(frozen=True)
class ArmRecord:
    """One way to train, compared with the others: `alone`, `federated`, `federated-dp`, `pooled`."""

    arm: str
    sites: dict[str, SiteMetrics]
    federation: FederationRecord | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class SameChest:
    """Simulation only: the same virtual patients imaged on every scanner, under one model."""

    scanner: str
    auroc: Estimate
    mean_score_shift: float
    """Mean over patients of score on this scanner minus the patient's mean over scanners."""
    patients: int


@dataclass(frozen=True)
class ScannerGuess:
    """Simulation only: how well the scanner can be read from features, against chance."""

    source: str
    """`features` of the model or `pixels`."""
    balanced_accuracy: Estimate
    chance: float
    patients: int


@dataclass(frozen=True)
class AuditFigure:
    """Simulation only: one figure of a privacy audit of the code that ran (`consilium-sim audit`)."""

    attack: str
    protection: str
    result: str
    """In words with numbers, such as `0 of 32 images`."""
    good: bool | None
    """Whether it is as claimed; None where nothing was claimed, as without protection."""


@dataclass(frozen=True)
class AuditPicture:
    """Simulation only: a row of virtual patients' images as one arm of an attack gave them back."""

    title: str
    png: str
    """Base64."""


@dataclass(frozen=True)
class SimulationOnly:
    """What can only be known where every patient is virtual. Never part of a real federation."""

    scanner_of_site: dict[str, str] = field(default_factory=dict)
    planted_weak_scanner: str | None = None
    same_chest: tuple[SameChest, ...] = ()
    scanner_guess: tuple[ScannerGuess, ...] = ()
    audit: tuple[AuditFigure, ...] = ()
    """Empty: no audit was added to this run."""
    audit_pictures: tuple[AuditPicture, ...] = ()
    """Originals first; then what came back without protection, and with it. Never a real patient's."""
    bias: Bias | None = None
    """What the bias lab asked of the model that the report is about."""


@dataclass(frozen=True)
class RunRecord:
    """A whole experiment: every arm on the same hospitals."""

    run: str
    created: str
    """UTC, ISO 8601."""
    study: str
    question: str
    plan_digest: str
    code_digest: str
    seed: int
    simulated: bool
    arms: dict[str, ArmRecord]
    comparisons: dict[str, tuple[Comparison, ...]] = field(default_factory=dict)
    """Per site: paired differences between arms on the same test patients."""
    intake: dict[str, IntakeSummary] = field(default_factory=dict)
    external: tuple[str, ...] = ()
    """Sites that only tested."""
    simulation_only: SimulationOnly | None = None
    plan_toml: str = ""
    """The plan as TOML: confidence, minimum cell and delta are read from it; empty: unknown."""
    schema: str = SCHEMA


def write_record(record: RunRecord, path: Path) -> None:
    """Write `metrics.json`, whole or not at all.

    Raises:
        StorageError: when it cannot be written.
    """
    write_whole(path, json.dumps(asdict(record), indent=1, sort_keys=True).encode())


def read_record(path: Path) -> RunRecord:
    """Read `metrics.json` back."""
    return TypeAdapter(RunRecord).validate_json(path.read_bytes())
