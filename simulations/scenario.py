"""One scenario file: which hospitals, which plan, which arms to compare.

    base = "balanced"        another scenario that this one changes; tables are joined, lists replaced; it may have a base too
    [scenario]               name, kind, seed, arms, hospitals and patients or table and external
    [plan.*]                 a study plan, as in plan.toml
    [arm.<arm>.<section>]    what an arm changes in the plan
    [[site]]                 a virtual hospital, or many alike: patients, machines, labels (`simulations.sites`)
    [frontier]               utility against privacy: many settings of one federated study instead of arms
    [with-data.*]            sections changed where a folder of real images is given

An arm is one way to train on the same hospitals: `alone` (each by itself), `federated`,
`federated-dp` (the same with patient-level differential privacy), `pooled` (all images in one place,
which only a simulation may do).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from client.policy import Policy
from common.errors import InputError, PlanError, Problem
from common.plan import Plan, plan_from_dict
from simulations.mistakes import problems_of
from simulations.partition import Cut
from simulations.sites import VirtualSite, virtual_sites

Arm = Literal["alone", "federated", "federated-dp", "pooled"]
Part = Literal["head", "last-block", "norms-and-head", "adapters", "all"]
Changes = dict[str, dict[str, Any]]
"""Sections of the plan with the keys that are changed in them."""
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
    least_patients: Annotated[int, Field(ge=1)] = Policy().min_patients
    """Training patients without whom a hospital does not take part: `policy.min_patients` of each."""
    table: str = "labels.csv"
    """Relative to the data folder; images only."""
    external: tuple[str, ...] = ()
    """Sites that test and never train; images only."""
    cut: Cut = field(default_factory=Cut)
    """What is a site; images only."""


@dataclass(frozen=True, config=_STRICT)
class Frontier:
    """`[frontier]`: every epsilon with every K with every trainable part."""

    epsilons: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """`inf` trains without privacy."""
    images_per_patient: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    """K."""
    part: Annotated[dict[Part, Changes], Field(min_length=1)]
    """Trainable part to what it changes in the plan: its network, its learning rate."""
    private: dict[Part, Changes] = field(default_factory=dict)
    """What is changed beside that where there is privacy."""


@dataclass(frozen=True, config=_STRICT)
class Scenario:
    """A scenario, validated; `plan_for` gives each arm its plan."""

    scenario: Setting
    plan: dict[str, dict[str, Any]]
    arm: dict[Arm, dict[str, dict[str, Any]]] = field(default_factory=dict)
    frontier: Frontier | None = None
    site: tuple[VirtualSite, ...] = ()
    """Virtual hospitals; the default federation where none is named."""

    def plan_for(self, arm: Arm) -> Plan:
        """The study plan of one arm; raises `PlanError` with every mistake."""
        return self.plan_with(arm, (), f"arm {arm}")

    def plan_with(self, arm: Arm, more: Sequence[Changes], name: str) -> Plan:
        """The plan of an arm with further changes, one after another; `name` says in errors whose it is."""
        raw = {section: dict(keys) for section, keys in self.plan.items()}
        for changes in (self.arm.get(arm, {}), *more):
            for section, keys in changes.items():
                raw[section] = {**raw.get(section, {}), **keys}
        return plan_from_dict(raw, f"scenario {self.scenario.name}, {name}")


def load_scenario(
    path: Path, *, rounds: int | None = None, with_data: bool = False, **changes: Any
) -> Scenario:
    """Read a scenario file.

    Args:
        path: the file.
        with_data: whether real images are given, so that `[with-data]` counts.
        rounds: replaces `plan.federation.rounds`, where given.
        changes: replace keys of `[scenario]`, where they are not None.

    Raises:
        PlanError: with every mistake of the scenario and of the plans of its arms.
        InputError: when the file is not there.
    """
    raw = _read(path, with_data=with_data)
    _change(raw, ("scenario",), changes)
    _change(raw, ("plan", "federation"), {"rounds": rounds})
    return _scenario(raw, path)


def scenario_with(path: Path, settings: Mapping[str, Any], *, with_data: bool = False) -> Scenario:
    """Read a scenario file with some of its keys set otherwise; errors as `load_scenario`.

    Args:
        path: the file.
        settings: keys of it, as `plan.training.learning_rate`, and their values.
        with_data: as there.
    """
    raw = _read(path, with_data=with_data)
    for key, value in settings.items():
        *where, last = key.split(".")
        _change(raw, tuple(where), {last: value})
    return _scenario(raw, path)


def _read(path: Path, *, with_data: bool) -> dict[str, Any]:
    raw = _with_base(path)
    other = raw.pop("with-data", {})
    return dict(merged(raw, other)) if with_data else raw


def _scenario(raw: dict[str, Any], path: Path) -> Scenario:
    try:
        scenario = TypeAdapter(Scenario).validate_python(raw)
    except ValidationError as error:
        raise PlanError(path.name, problems_of(error, raw, Scenario), "scenario") from None
    _check_arms(scenario, path.name)
    if scenario.site:
        # Machines, drifts and shares of every hospital, before a folder is made.
        virtual_sites(scenario.site, scenario.scenario.seed)
    return scenario


def _with_base(path: Path) -> dict[str, Any]:
    """A scenario over the one it names as its base, beside it or shipped, which may have a base in turn."""
    raw, seen = read_toml(path), [path.resolve()]
    while (base := raw.pop("base", None)) is not None:
        places = [folder / f"{base}.toml" for folder in (seen[-1].parent, HERE)]
        under = next((place for place in places if place.is_file() and place.resolve() not in seen), None)
        if under is None:
            there = any(place.is_file() for place in places)
            rule = f"its base {base} is based on it in turn" if there else f"its base {base} is not there"
            raise InputError(path.name, rule, f"Name another beside it, or a shipped one: {_shipped('')}")
        seen.append(under.resolve())
        raw = merged(read_toml(under), raw)
    return raw


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values.

    Raises:
        InputError: it is not there, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path.name, "there is no such scenario file", f"Shipped are: {_shipped()}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(path.name, f"it is not TOML: {error}", "Correct that line") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(path.name, "it cannot be read as text in UTF-8", "Check its rights") from None


def _shipped(suffix: str = ".toml") -> str:
    return ", ".join(sorted(path.stem + suffix for path in HERE.glob("*.toml")))


def merged(raw: Any, other: Any) -> Any:
    """`other` over `raw`, table by table; a list or a value replaces what stood there."""
    if not isinstance(raw, dict) or not isinstance(other, dict):
        return other
    return {**raw, **{key: merged(raw.get(key), value) for key, value in other.items()}}


def _change(raw: dict[str, Any], where: tuple[str, ...], changes: dict[str, Any]) -> None:
    """Set keys of one section, where it is one; what else stands there is for validation to refuse."""
    section: Any = raw
    for name in where:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section.update({key: value for key, value in changes.items() if value is not None})


def _check_arms(scenario: Scenario, subject: str) -> None:
    setting, problems = scenario.scenario, []
    if len(set(setting.arms)) < len(setting.arms):
        problems.append(Problem("scenario.arms", "an arm is named twice", "Name each once"))
    if setting.kind == "virtual" and setting.external:
        problems.append(Problem("scenario.external", "virtual hospitals all train", "Leave it out"))
    if setting.kind != "virtual" and scenario.site:
        problems.append(Problem("site", "sites of real images come from their table", "Leave it out"))
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
        raise PlanError(subject, problems, "scenario")
