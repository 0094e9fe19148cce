"""What time does to a site: slow drift, and services after which something begins anew or becomes different.

`site_at(site, history, month)` is a pure function: the site, of X-ray, MR or CT, as it is in that month. Numbers are named by
their path ("machine.panel.electronic", "habits.kerma_ugy.median", "mas.median"); everything in a site may drift.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from common.errors import DataError

PATTERN: Final = "machine.pattern"
"""Of X-ray machines. Renewing it is a flat-field calibration: the fixed pattern becomes another."""
AnySite = TypeVar("AnySite")
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Drift:
    """One number that moves with the months since it was last renewed."""

    path: str
    per_month: float
    kind: Literal["relative", "additive"] = "relative"
    """relative: value (1 + r)^months; additive: value + r months."""


@dataclass(frozen=True)
class Service:
    """What happened in one month: which drifts begin anew, and what is different from then on."""

    month: float
    renews: tuple[str, ...] = ()
    """Paths, or beginnings of paths at a dot: "machine.tube" renews all of the tube."""
    sets: Mapping[str, float | int | str] = field(default_factory=dict)
    """Path to new value, for instance after an update of the processing software."""


@dataclass(frozen=True)
class History:
    """All that happens to one site, in any order."""

    drifts: tuple[Drift, ...] = ()
    services: tuple[Service, ...] = ()


def history_of(table: Mapping[str, object]) -> History:
    """The history that a scenario's TOML tells: lists `drift` and `service` of tables with the fields above.

    Raises:
        DataError: when a table has a field that is not known, lacks one, or holds another type.
    """
    told = {"drift": Drift, "service": Service}
    for key, rows in table.items():
        if key not in told or not isinstance(rows, list):
            raise DataError(
                f"history.{key}",
                "is neither a list of drifts nor of services",
                "Use [[drift]] and [[service]]",
            )
        known = {one.name for one in fields(told[key])}
        for row in rows:
            if unknown := set(row) - known:
                raise DataError(
                    f"history.{key}", f"has no {sorted(unknown)}", f"Use {', '.join(sorted(known))}"
                )
    try:
        return TypeAdapter(History).validate_python(
            {"drifts": table.get("drift", ()), "services": table.get("service", ())}
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"history.{place}", str(first["msg"]), "Correct this value") from None


def site_at(site: AnySite, history: History, month: float) -> AnySite:
    """The site in this month; months before the first service count from 0.

    Raises:
        DataError: when a path names nothing, or not a number that can drift.
    """
    done = sorted((one for one in history.services if one.month <= month), key=lambda one: one.month)
    for service in done:
        for path, value in service.sets.items():
            site = _put(site, path, value)
    for drift in history.drifts:
        since = max([0.0, *(one.month for one in done if _renewed(drift.path, one))])
        value = _number(site, drift.path)
        moved = (
            value * (1 + drift.per_month) ** (month - since)
            if drift.kind == "relative"
            else value + drift.per_month * (month - since)
        )
        site = _put(site, drift.path, moved)
    calibrations = sum(_renewed(PATTERN, one) for one in done)
    if calibrations:
        fresh = np.random.default_rng([int(_number(site, PATTERN)), calibrations, zlib.crc32(b"calibration")])
        site = _put(site, PATTERN, int(fresh.integers(2**62)))
    return site


def _renewed(path: str, service: Service) -> bool:
    return any(path == name or path.startswith(name + ".") for name in service.renews)


def _number(site: Any, path: str) -> float:
    at = site
    for name in path.split("."):
        at = getattr(_holding(at, name, path), name)
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise DataError(path, "is not a number that can drift", "Name a number within it")
    return float(at)


def _put(thing: Thing, path: str, value: float | str, whole: str = "") -> Thing:
    head, _, rest = path.partition(".")
    old = getattr(_holding(thing, head, whole or path), head)
    new = _put(old, rest, value, whole or path) if rest else value
    if not rest and (is_dataclass(old) or isinstance(old, tuple) or old is None):
        raise DataError(whole or path, "is more than one value", "Name a value within it")
    return replace(thing, **{head: new})  # type: ignore[type-var]  # checked by _holding


def _holding(thing: Thing, name: str, path: str) -> Thing:
    """The same thing, when it has such a field."""
    names = [one.name for one in fields(thing)] if is_dataclass(thing) else []
    if name not in names:
        there = f"There are {', '.join(names)}" if names else "Leave out what follows the number"
        raise DataError(path, f"names nothing at {name}", there)
    return thing


AGEING: Final = History(
    drifts=(
        Drift("machine.tube.focal_mm", 0.004),
        Drift("machine.tube.target_depth", 0.006),
        Drift("habits.kerma_ugy.median", -0.008),
        Drift("machine.panel.gain_spread", 0.03),
        Drift("machine.panel.electronic", 0.003),
        Drift("machine.panel.dead_ppm", 4.0, "additive"),
        Drift("machine.panel.dead_lines", 0.1, "additive"),
    ),
    services=(
        Service(12, renews=(PATTERN, "machine.panel.gain_spread")),
        Service(
            18,
            renews=("machine.tube", "habits.kerma_ugy", PATTERN, "machine.panel.gain_spread"),
            sets={"machine.display.edge_gain": 0.9, "machine.display.gamma": 0.7},
        ),
    ),
)
"""An example: two years of a room. A calibration after one, a new tube and new software after eighteen months. Rates are our
choice: a roughened target loses some percent of output a year."""
