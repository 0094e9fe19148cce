"""The study plan: what the consortium asks of every hospital, as frozen dataclasses.

A plan is one TOML file. It is validated whole: every mistake is reported at once, with the rule it
breaks and the remedy. Its digest names it: hospitals approve a digest, not a file name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tomllib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from common.errors import PlanError, Problem
from common.plan_analytics import Analytics
from common.plan_federation import Federation
from common.plan_fields import STRICT, Count, Fraction, Name, Positive, Seed, Side
from common.plan_method import MethodSettings
from common.plan_rules import mistakes
from common.plan_training import Personalisation, Privacy, Training
from common.types import Digest


@dataclass(frozen=True, config=STRICT)
class Study:
    """What is studied, in words a hospital's board can read."""

    name: Name
    question: str
    version: Count = 1


@dataclass(frozen=True, config=STRICT)
class Task:
    """What the model answers. Binary: `classes` names the one finding looked for."""

    kind: Literal["binary", "multiclass", "multilabel", "segmentation"]
    classes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]

    @property
    def outputs(self) -> int:
        """Number of logits the model returns for one image."""
        return 1 if self.kind == "binary" else len(self.classes)


@dataclass(frozen=True, config=STRICT)
class Window:
    """A display window in the units of the modality (Hounsfield units for CT)."""

    centre: Annotated[float, Field(strict=True)]
    width: Positive


@dataclass(frozen=True, config=STRICT)
class Input:
    """What one image must look like when it reaches the network."""

    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    shape: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)]
    """(rows, columns) in pixels, or (slices, rows, columns) for a volume."""
    normalisation: Literal["zscore", "minmax", "equalise", "window", "histogram", "amplitude"] = "zscore"
    window: Window | None = None

    @model_validator(mode="after")
    def _window_is_there(self) -> Input:
        if (self.normalisation == "window") != (self.window is not None):
            raise ValueError("`window` goes with normalisation = 'window', and only with it")
        return self


@dataclass(frozen=True, config=STRICT)
class Labels:
    """Where the truth comes from; shown in every report."""

    source: Literal["csv", "report", "reader", "synthetic"]
    provenance: str
    version: str = "1"


@dataclass(frozen=True, config=STRICT)
class Data:
    """How each hospital splits its own patients; the digest pins the data set where it is known."""

    test_fraction: Fraction = 0.3
    validation_fraction: Fraction = 0.1
    split_seed: Seed = 0
    digest: str = ""

    @model_validator(mode="after")
    def _something_is_left(self) -> Data:
        if self.test_fraction + self.validation_fraction >= 0.9:
            raise ValueError("test_fraction + validation_fraction must leave a tenth for training")
        return self


@dataclass(frozen=True, config=STRICT)
class Model:
    """Which network, where its weights start, and which part of it may learn."""

    name: Literal[
        "small-cnn",
        "linear",
        "scatter",
        "densenet121",
        "resnet18",
        "resnet50",
        "efficientnet-b0",
        "efficientnet-lite0",
        "vit",
    ]
    trainable: Literal["all", "head", "last-block", "norms-and-head", "adapters"] = "all"
    adapter_rank: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    """Channels of each low-rank path beside a frozen layer; with `adapters` only."""
    init_seed: Seed = 0
    weights: Annotated[str, Field(pattern=r"^(imagenet|sha256:[0-9a-f]{64})?$")] = ""
    """Where the body's weights come from, when not from the seed; see `common/models/weights.py`."""
    options: dict[str, int | float | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """What is measured at each hospital and how it may leave."""

    groups: tuple[Literal["manufacturer", "projection", "sex", "age"], ...] = (
        "manufacturer",
        "projection",
    )
    min_cell: Annotated[int, Field(strict=True, ge=1)] = 11
    """Smallest count that may leave; source: CMS cell suppression policy (11)."""
    bootstrap: Annotated[int, Field(strict=True, ge=100, le=100_000)] = 1000
    confidence: Annotated[float, Field(strict=True, gt=0.5, lt=1)] = 0.95


@dataclass(frozen=True, config=STRICT)
class Plan:
    """A whole study plan. See `docs/plan.md` for each key with an example."""

    study: Study
    task: Task
    input: Input
    labels: Labels
    model: Model
    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    personalisation: Personalisation = field(default_factory=Personalisation)
    privacy: Privacy = field(default_factory=Privacy)
    federation: Federation = field(default_factory=Federation)
    method: MethodSettings = field(default_factory=MethodSettings)
    evaluation: Evaluation = field(default_factory=Evaluation)
    analytics: Analytics = field(default_factory=Analytics)

    @property
    def private(self) -> bool:
        """Whether training runs under patient-level differential privacy."""
        return self.privacy.mode == "patient-dp"

    @property
    def surveys(self) -> bool:
        """Whether the plan is an analysis, under which patients are counted and nothing is trained."""
        return self.analytics.survey

    @functools.cached_property
    def digest(self) -> Digest:
        """SHA-256 over the canonical JSON of every field, defaults included."""
        text = json.dumps(as_dict(self), sort_keys=True, separators=(",", ":"))
        return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


_ADAPTER: TypeAdapter[Plan] = TypeAdapter(Plan)


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain TOML-ready values; keys without a value are left out."""
    return {key: _without_none(value) for key, value in dataclasses.asdict(plan).items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return value


@functools.lru_cache(maxsize=8)
def parse_plan(text: str, subject: str = "plan.toml") -> Plan:
    """Read a plan from TOML text; the last few are remembered, because every question of a run brings the same.

    Raises:
        PlanError: with every mistake found, each with its place, rule and remedy.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = str(error).rpartition("(")[2].rstrip(")") or "the file"
        problem = Problem(place, "this is not TOML", "Check quotes, brackets and equal signs there")
        raise PlanError(subject, [problem]) from None
    return plan_from_dict(raw, subject)


def plan_from_dict(raw: dict[str, Any], subject: str = "plan") -> Plan:
    """Validate plain values as a plan; raises `PlanError` with every mistake."""
    problems = mistakes(raw, _ADAPTER.validate_python)
    if problems:
        raise PlanError(subject, problems)
    return _ADAPTER.validate_python(raw)


def load_plan(path: Path) -> Plan:
    """Read a plan file; see `parse_plan` for the errors."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        problem = Problem(path.name, "the file cannot be read as UTF-8 text", "Check its path and rights")
        raise PlanError(path.name, [problem]) from None
    return parse_plan(text, path.name)


def dump_plan(plan: Plan) -> str:
    """The plan as TOML text that `parse_plan` reads back to an equal plan."""
    return tomli_w.dumps(as_dict(plan))


def replace(plan: Plan, **sections: dict[str, Any]) -> Plan:
    """A copy with some keys changed, e.g. `replace(plan, privacy={"mode": "none"})`, validated anew."""
    raw = as_dict(plan)
    for section, changes in sections.items():
        raw[section] = {**raw.get(section, {}), **changes}
    return plan_from_dict(raw)
