"""Reading a RunRecord: which models there are, under which name, and what each hospital released.

A *series* is one way to get a model, compared over hospitals: `alone`, `federated`, `personalised`,
`federated-dp`, `personalised-dp`, `pooled`. An arm may release several models (a federated arm releases
the shared and the personalised one), so a series is found from the arm and the model together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final, TypeVar
from weakref import finalize

from common.errors import PlanError
from common.messages import Comparison, Estimate, GroupMetrics, IntakeSummary, ModelMetrics
from common.plan import Plan, plan_from_dict
from server.records import ArmRecord, RunRecord


@dataclass(frozen=True)
class Look:
    """How a series is named and drawn, always the same; colours of Okabe and Ito (2008)."""

    label: str
    colour: str
    marker: str
    hollow: bool = False


LOOKS: Final[dict[str, Look]] = {
    "alone": Look("Each hospital alone", "#5f6b7a", "diamond", hollow=True),
    "federated": Look("Federated", "#0072b2", "circle"),
    "personalised": Look("Federated, personalised", "#009e73", "square"),
    "federated-dp": Look("Federated, private", "#d55e00", "triangle"),
    "personalised-dp": Look("Private, personalised", "#cc79a7", "square", hollow=True),
    "pooled": Look("Pooled", "#3a3a3a", "diamond"),
}
"""Every series in the order of the report."""

FEDERATED: Final = ("federated", "personalised", "federated-dp", "personalised-dp")
"""The series that come from sharing."""

Series = dict[str, dict[str, ModelMetrics]]
T = TypeVar("T")


def once(read: Callable[[RunRecord], T]) -> Callable[[RunRecord], T]:
    """`read`, carried out once for each record and kept as long as the record lives.

    A record never changes after it was made, and a report asks the same of it line by line. What comes back is
    everybody's: it is looked at, never changed.
    """
    kept: dict[int, T] = {}

    @wraps(read)
    def found(record: RunRecord) -> T:
        key = id(record)
        if key not in kept:
            kept[key] = read(record)
            finalize(record, kept.pop, key, None)
        return kept[key]

    return found


def look(series: str) -> Look:
    """How to draw a series; an unknown one keeps its own name."""
    return LOOKS.get(series, Look(series, "#3a3a3a", "circle", hollow=True))


def series_name(arm: str, model: str) -> str:
    """The series of `model` as released in `arm`."""
    if model in (arm, "alone", "pooled"):
        return model
    private = arm.endswith("-dp")
    if model == "personalised":
        return "personalised-dp" if private else "personalised"
    return arm if model == "federated" else model


@once
def all_series(record: RunRecord) -> Series:
    """Every released model by series, then by site, in the order of the report."""
    found: Series = {}
    for arm in record.arms.values():
        for site, metrics in arm.sites.items():
            for model in metrics.models:
                name = series_name(arm.arm, model.model)
                if name == arm.arm or model.model not in record.arms:
                    found.setdefault(name, {}).setdefault(site, model)
    order = list(LOOKS)
    rank = {name: order.index(name) if name in order else len(order) for name in found}
    return {name: found[name] for name in sorted(found, key=lambda n: (rank[n], n))}


def main_series(record: RunRecord) -> str | None:
    """The model the report is about: the federated one, or the nearest there is."""
    names = all_series(record)
    order = ("federated", "federated-dp", "personalised", "personalised-dp", "pooled", "alone")
    return next((name for name in order if name in names), next(iter(names), None))


@once
def sites(record: RunRecord) -> list[str]:
    """Every hospital of the record: those that trained first, then those that only tested, by name."""
    names = {site for arm in record.arms.values() for site in arm.sites} | set(record.intake)
    for arm in record.arms.values():
        if arm.federation is not None:
            names |= set(arm.federation.expected) | set(arm.federation.trained)
    return sorted(names, key=lambda name: (name in record.external, name))


def group_of(
    metrics: ModelMetrics | None, group: str = "all", level: str | None = None
) -> GroupMetrics | None:
    """One released group of a model, or None where nothing was released."""
    if metrics is None:
        return None
    return next((g for g in metrics.groups if g.group == group and (level is None or g.level == level)), None)


def levels(record: RunRecord, group: str) -> list[str]:
    """Every value of a group that any hospital named, sorted."""
    found = {
        g.level
        for by_site in all_series(record).values()
        for m in by_site.values()
        for g in m.groups
        if g.group == group
    }
    return sorted(found)


def patients(group: GroupMetrics | None) -> int | None:
    """Test patients of a released group; None when either cell was held back."""
    if group is None or group.positives is None or group.negatives is None:
        return None
    return group.positives + group.negatives


def absent(group: GroupMetrics | None) -> str:
    """Why a group has no figure, in words."""
    if group is None:
        return "not measured"
    if group.positives == 0 or group.negatives == 0:
        return "one class only"
    return "held back"


def federated_arms(record: RunRecord) -> list[ArmRecord]:
    """Arms with rounds, private ones last."""
    arms = [arm for arm in record.arms.values() if arm.federation is not None]
    return sorted(arms, key=lambda arm: (list(LOOKS).index(arm.arm) if arm.arm in LOOKS else 99, arm.arm))


def subset_arms(record: RunRecord) -> list[ArmRecord]:
    """Arms that ran on fewer hospitals than were expected, by the record's word or by its lists."""
    return [
        arm
        for arm in federated_arms(record)
        if arm.federation is not None
        and (arm.federation.subset or set(arm.federation.expected) - set(arm.federation.trained))
    ]


@once
def comparisons(record: RunRecord) -> dict[str, list[Comparison]]:
    """Per site, paired comparisons under series names, the record's own and those inside its arms."""
    found: dict[str, dict[tuple[str, str, str], Comparison]] = {}
    for site, listed in record.comparisons.items():
        for each in listed:
            found.setdefault(site, {}).setdefault((each.model, each.other, each.metric), each)
    for arm in record.arms.values():
        for site, metrics in arm.sites.items():
            for each in metrics.comparisons:
                model, other = series_name(arm.arm, each.model), series_name(arm.arm, each.other)
                renamed = Comparison(model, other, each.metric, each.difference)
                found.setdefault(site, {}).setdefault((model, other, each.metric), renamed)
    return {site: list(by_key.values()) for site, by_key in found.items()}


def paired(record: RunRecord, site: str, model: str, other: str, metric: str = "auroc") -> Estimate | None:
    """The paired difference `model - other` at a site, read in either direction."""
    for each in comparisons(record).get(site, ()):
        if each.metric != metric:
            continue
        if (each.model, each.other) == (model, other):
            return each.difference
        if (each.model, each.other) == (other, model):
            d = each.difference
            return Estimate(-d.value, -d.high, -d.low)
    return None


@once
def intake(record: RunRecord) -> dict[str, IntakeSummary]:
    """Intake per site: the record's own, else what a federation's survey or a site's reply said."""
    found: dict[str, IntakeSummary] = dict(record.intake)
    for arm in record.arms.values():
        if arm.federation is not None:
            for site, summary in arm.federation.intake.items():
                found.setdefault(site, summary)
        for site, metrics in arm.sites.items():
            if metrics.intake is not None:
                found.setdefault(site, metrics.intake)
    return found


@once
def plan_of(record: RunRecord) -> Plan | None:
    """The plan, where the record carries its text."""
    if not record.plan_toml:
        return None
    try:
        return plan_from_dict(tomllib.loads(record.plan_toml))
    except (PlanError, tomllib.TOMLDecodeError):
        return None
