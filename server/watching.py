"""What the consortium can see of its federation at this moment, read from its folder; nothing is asked of anybody.

Everything is from the book (`server.site_book`), what was last heard of each hospital (`server.sightings`), the runs'
records and logs (`server.journal`), and the supervisor's status. Nothing here writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from common.audit import read
from common.errors import ConsiliumError
from common.messages import SiteMetrics
from server.federation_folder import Consortium
from server.journal import read_live
from server.records import RoundRecord
from server.runs import Study, outcome, studies
from server.sightings import read_sighting

ONLINE_S: Final = 60.0
"""A node asks every few seconds; one that was silent for so long is away."""
_EVENTS: Final = 40
_SHOWN: Final = frozenset(
    (
        "metrics.refused",
        "round.completed",
        "round.failed",
        "run.ended",
        "run.started",
        "survey.refused",
        "update.admitted",
        "update.refused",
        "version.skew",
    )
)


@dataclass(frozen=True)
class SiteNow:
    """A hospital."""

    name: str
    state: str
    """`invited`, `waiting`, `member` or `revoked`."""
    online: bool
    seen_s: float | None
    """Seconds since it last came through the edge, or answered; None: never."""
    version: str = ""
    skew_s: float | None = None
    """Its clock less ours, when it answered last."""
    disk_free_gb: int | None = None
    gpus: int | None = None
    epsilon: float | None = None
    """Spent by its worst patient, as it said last."""
    certificate_days: int | None = None


@dataclass(frozen=True)
class RoundNow:
    """A completed round."""

    round: int
    seconds: float
    bytes_up: int
    bytes_down: int
    trained: tuple[str, ...]
    refused: dict[str, str]
    """Site to code."""
    loss: dict[str, float | None]
    auroc: dict[str, float | None]


@dataclass(frozen=True)
class RunNow:
    """A study that was submitted."""

    name: str
    state: str
    """With the word subset where sites are missing."""
    round: int
    """Completed rounds."""
    under_way: tuple[str, ...] = ()
    """Sites whose update of the round under way was admitted."""
    refused: dict[str, str] = field(default_factory=dict)
    """Site to code: before the first round, and in the round under way."""
    rounds: tuple[RoundNow, ...] = ()
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Site to the final model's AUROC by arm; None where suppressed."""


@dataclass(frozen=True)
class Event:
    """A line of a run's log."""

    time: str
    run: str
    event: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Now:
    """The whole federation."""

    federation: str
    at: float
    """Seconds since 1970."""
    sites: tuple[SiteNow, ...]
    runs: tuple[RunNow, ...]
    processes: dict[str, str]
    """Name to `up` or `down`; empty when nothing was started."""
    events: tuple[Event, ...] = ()
    """The newest first; of one moment, the line written last."""


def look(consortium: Consortium, now: float | None = None) -> Now:
    """Read it all.

    Raises:
        StorageError: the book or the list of studies cannot be read.
    """
    at = time.time() if now is None else now
    submitted = studies(consortium.folder)
    logs = {study.name: _log(consortium.folder / "runs" / study.name) for study in submitted}
    events = sorted(
        (event for name, lines in logs.items() for event in _events(name, lines)),
        key=lambda event: event.time,
        reverse=True,
    )
    return Now(
        consortium.name,
        at,
        tuple(_sites(consortium, at)),
        tuple(_run(consortium.folder, study, logs[study.name]) for study in reversed(submitted)),
        processes(consortium.run / "processes" / "status.json"),
        tuple(events[:_EVENTS]),
    )


def processes(path: Path) -> dict[str, str]:
    """The supervisor's status, by process; empty where nothing runs or it cannot be read."""
    try:
        values = json.loads(path.read_bytes())
        alive = Path(f"/proc/{int(values['pid'])}").exists()
        return {str(name): _word(one) if alive else "down" for name, one in values["programs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _word(one: dict[str, Any]) -> str:
    return "up" if one.get("state") == "running" else "down"


def _sites(consortium: Consortium, at: float) -> Iterator[SiteNow]:
    for row in consortium.book.sites():
        heard = read_sighting(consortium.folder, row.name)
        last = max(row.seen_at, heard.at)
        seen_s = round(max(0.0, at - last), 1) if last else None
        newest = consortium.book.newest(row.name)
        health = heard.health
        yield SiteNow(
            row.name,
            row.state,
            seen_s is not None and seen_s <= ONLINE_S and row.state != "revoked",
            seen_s,
            health.version if health else "",
            heard.skew_s if heard.at else None,
            health.disk_free_gb if health else None,
            health.gpus if health else None,
            heard.epsilon,
            int((newest[1].timestamp() - at) // 86400) if newest else None,
        )


def _log(home: Path) -> list[dict[str, Any]]:
    try:
        return list(read(home / "audit.jsonl"))
    except (OSError, ValueError):
        return []  # its last line is being written just now; the next look has it


def _events(run: str, lines: list[dict[str, Any]]) -> Iterator[Event]:
    """Newest first, so that a stable sort by time keeps two lines of one moment in that order."""
    for line in reversed(lines[-4 * _EVENTS :]):
        if line["event"] in _SHOWN:
            fields = {key: value for key, value in line["fields"].items() if key != "run"}
            yield Event(str(line["time"]), run, str(line["event"]), fields)


def _run(folder: Path, study: Study, lines: list[dict[str, Any]]) -> RunNow:
    """The round under way from the log, the completed ones from the record."""
    done, admitted, refused = _under_way(lines)
    now = RunNow(study.name, outcome(folder, study), done, admitted, refused)
    try:
        record = read_live(folder / "runs" / study.name)
    except ConsiliumError:
        return now
    return replace(
        now,
        round=max(done, len(record.rounds)),
        refused={**record.refused, **refused},
        rounds=tuple(map(_round, record.rounds)),
        metrics={name: _aurocs(site) for name, site in record.sites.items()},
    )


def _under_way(lines: list[dict[str, Any]]) -> tuple[int, tuple[str, ...], dict[str, str]]:
    """The last completed round, and since then: who was admitted, who was refused and why."""
    admitted: list[str] = []
    refused: dict[str, str] = {}
    done = 0
    for line in lines:
        event, fields = line["event"], line["fields"]
        if event == "round.completed":
            done, admitted, refused = int(fields["round"]), [], {}
        elif event == "update.admitted":
            admitted.append(str(fields["site"]))
            refused.pop(str(fields["site"]), None)
        elif event in ("update.refused", "survey.refused"):
            refused[str(fields["site"])] = str(fields.get("code", ""))
    return done, tuple(dict.fromkeys(admitted)), refused


def _round(one: RoundRecord) -> RoundNow:
    sites = one.sites.items()
    return RoundNow(
        one.round,
        one.seconds,
        one.bytes_up,
        one.bytes_down,
        tuple(one.sites),
        one.refused,
        {name: site.loss for name, site in sites},
        {name: site.auroc for name, site in sites},
    )


def _aurocs(site: SiteMetrics) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for model in site.models:
        whole = next((group for group in model.groups if group.group == "all"), None)
        found[model.model] = whole.auroc.value if whole and whole.auroc else None
    return found
