"""What a tracker is told of a study: numbers that stand in the run's record, and nothing worked out from them.

The record holds what hospitals released; a cell that was suppressed is None there and is no point here. Loss and AUROC
of a round are those of the model that the round began with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from common.audit import read
from common.messages import Estimate, GroupMetrics, SiteMetrics
from server.journal import RUNNING, read_live
from server.records import FederationRecord, RoundRecord

_STRANGE: Final = re.compile(r"[^A-Za-z0-9_./ -]+")
"""What MLflow takes in no name."""
_SITE: Final = ("loss", "auroc", "epsilon", "update_norm", "weight")
_ROUND: Final = ("seconds", "bytes_up", "bytes_down", "loss", "auroc", "judged", "worse", "rolled_back")
_WHOLE: Final = ("auroc", "auprc", "sensitivity", "specificity", "precision", "f1", "ece")


@dataclass(frozen=True)
class Step:
    """A completed round, or the evaluation of the final model."""

    round: int
    at: float
    """When it was completed: seconds since 1970, by the run's log."""
    subset: bool
    """Whether a site that was expected is missing in this round or in one before."""
    values: dict[str, float]
    final: bool = False


@dataclass(frozen=True)
class Story:
    """A study as far as it has come."""

    study: str
    run: str
    status: str
    subset: bool
    facts: dict[str, str]
    """What stays the same: digests, strategy, who was expected."""
    steps: tuple[Step, ...]


def story(home: Path) -> Story:
    """The study whose folder this is.

    Raises:
        StorageError: there is no record yet, or it cannot be read.
    """
    record = read_live(home)
    times = _times(home / "audit.jsonl")
    facts = {
        "plan": record.plan_digest,
        "code": record.code_digest,
        "strategy": record.strategy,
        "private": str(record.private).lower(),
        "expected": " ".join(record.expected),
    }
    steps = tuple(_steps(record, times))
    return Story(home.name, record.run, record.status, record.subset, facts, steps)


def _steps(record: FederationRecord, times: dict[int, float]) -> Iterator[Step]:
    there = set(record.expected)
    for one in record.rounds:
        there &= set(one.sites)
        yield Step(
            one.round, times.get(one.round, 0.0), len(there) < len(record.expected), _told(_round(one))
        )
    if record.status != RUNNING and record.sites:
        last = record.rounds[-1].round if record.rounds else 0
        values = _told(_final(record.sites))
        yield Step(last, max(times.values(), default=0.0), record.subset, values, final=True)


def _told(found: Iterator[tuple[str, Any]]) -> dict[str, float]:
    """Numbers that are there and finite."""
    return {
        _STRANGE.sub("_", name): float(value)
        for name, value in found
        if isinstance(value, (bool, int, float)) and math.isfinite(value)
    }


def _round(one: RoundRecord) -> Iterator[tuple[str, Any]]:
    yield "round/sites", len(one.sites)
    yield "round/refused", len(one.refused)
    for key in _ROUND:
        yield f"round/{key}", getattr(one, key)
    for name, site in one.sites.items():
        for key in _SITE:
            yield f"site/{name}/{key}", getattr(site, key)


def _final(sites: dict[str, SiteMetrics]) -> Iterator[tuple[str, Any]]:
    for name, site in sites.items():
        for model in site.models:
            for group in model.groups:
                under = f"final/{name}/{model.model}/{_level(group)}"
                for key in _WHOLE:
                    yield f"{under}/{key}", _value(getattr(group, key))


def _level(group: GroupMetrics) -> str:
    return "all" if group.group == "all" else f"{group.group} {group.level}".replace("/", "_")


def _value(figure: Estimate | float | None) -> float | None:
    return figure.value if isinstance(figure, Estimate) else figure


def _times(log: Path) -> dict[int, float]:
    """Round to when it was completed; -1: when the run ended."""
    found: dict[int, float] = {}
    try:
        for line in read(log):
            at = datetime.fromisoformat(str(line["time"])).timestamp()
            if line["event"] == "round.completed":
                found[int(line["fields"]["round"])] = at
            elif line["event"] == "run.ended":
                found[-1] = at
    except (OSError, ValueError, KeyError, TypeError):
        return (
            found  # its last line is being written just now, or it is damaged: `audit verify` says so, not we
        )
    return found
