"""One scenario file: which hospitals, which plan, which arms to compare.

    [scenario]               name, kind, seed, arms, hospitals and patients or table and external
    [plan.*]                 a study plan, as in plan.toml
    [arm.<arm>.<section>]    what an arm changes in the plan

An arm is one way to train on the same hospitals: `alone` (each by itself), `federated`,
`federated-dp` (the same with patient-level differential privacy), `pooled` (all images in one place,
which only a simulation may do).
"""

from __future__ import annotations

import tomllib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from common.errors import InputError, PlanError, Problem
from common.plan import Plan, plan_from_dict

Arm = Literal["alone", "federated", "federated-dp", "pooled"]
HERE: Final = Path(__file__).parent / "scenarios"
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Setting:
    """`[scenario]`: where patients come from and what is compared."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    kind: Literal["virtual", "images"]
    """`virtual`: phantoms on simulated scanners; `images`: a folder of PNG with a table."""
    seed: Annotated[int, Field(ge=0)] = 0
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("alone", "federated", "federated-dp", "pooled")
    hospitals: Annotated[int, Field(ge=2)] = 6
    patients: Annotated[int, Field(ge=60)] = 1620
    """All hospitals together; virtual patients only."""
    table: str = "labels.csv"
    """Relative to the data folder; images only."""
    external: tuple[str, ...] = ()
    """Sites that test and never train; images only."""


@dataclass(frozen=True, config=_STRICT)
class Scenario:
    """A scenario, validated; `plan_for` gives each arm its plan."""

    scenario: Setting
    plan: dict[str, dict[str, Any]]
    arm: dict[Arm, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def plan_for(self, arm: Arm) -> Plan:
        """The study plan of one arm; raises `PlanError` with every mistake."""
        raw = {section: dict(keys) for section, keys in self.plan.items()}
        for section, changes in self.arm.get(arm, {}).items():
            raw[section] = {**raw.get(section, {}), **changes}
        return plan_from_dict(raw, f"scenario {self.scenario.name}, arm {arm}")


def load_scenario(path: Path, *, rounds: int | None = None, **changes: Any) -> Scenario:
    """Read a scenario file.

    Args:
        path: the file.
        rounds: replaces `plan.federation.rounds`, where given.
        changes: replace keys of `[scenario]`, where they are not None.

    Raises:
        PlanError: with every mistake of the scenario and of the plans of its arms.
        InputError: when the file is not there.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(p.name for p in HERE.glob("*.toml")))
        raise InputError(path.name, "there is no such scenario file", f"Shipped are: {shipped}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise InputError(path.name, "the file is not readable TOML", "Check its syntax and rights") from None
    _change(raw, ("scenario",), changes)
    _change(raw, ("plan", "federation"), {"rounds": rounds})
    try:
        scenario = TypeAdapter(Scenario).validate_python(raw)
    except ValidationError as error:
        raise PlanError(path.name, [_problem(dict(e)) for e in error.errors()]) from None
    _check_arms(scenario, path.name)
    return scenario


def _change(raw: dict[str, Any], where: tuple[str, ...], changes: dict[str, Any]) -> None:
    """Set keys of one section, where it is one; what else stands there is for validation to refuse."""
    section: Any = raw
    for name in where:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section.update({key: value for key, value in changes.items() if value is not None})


def _problem(error: dict[str, Any]) -> Problem:
    """One mistake in our words; a word that stands in the file is said again, so that it is found."""
    given = f", not {error['input']!r}" if isinstance(error["input"], str) else ""
    return Problem(".".join(map(str, error["loc"])), error["msg"] + given, "Correct it")


def _check_arms(scenario: Scenario, subject: str) -> None:
    setting, problems = scenario.scenario, []
    if len(set(setting.arms)) < len(setting.arms):
        problems.append(Problem("scenario.arms", "an arm is named twice", "Name each once"))
    if setting.kind == "virtual" and setting.external:
        problems.append(Problem("scenario.external", "virtual hospitals all train", "Leave it out"))
    for arm in sorted(scenario.arm):
        scenario.plan_for(arm)
    for arm in scenario.scenario.arms:
        plan = scenario.plan_for(arm)
        if plan.private != (arm == "federated-dp"):
            word = (
                "is the private one" if arm == "federated-dp" else "trains without noise, to be compared with"
            )
            remedy = f"Set [arm.{arm}.privacy] mode to '{'patient-dp' if arm == 'federated-dp' else 'none'}'"
            problems.append(Problem(f"arm.{arm}.privacy.mode", f"the arm {arm} {word}", remedy))
    if problems:
        raise PlanError(subject, problems)
