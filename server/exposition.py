"""The federation as Prometheus reads it: text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).

Written here, because a handful of gauges needs no library; a test holds every line to the format's grammar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from server.watching import Now, RunNow, SiteNow

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: str
    """`gauge` or `counter`."""
    help: str
    samples: Iterable[tuple[Labels, float | None]]
    """None: not known, and then not said."""


def exposition(now: Now) -> str:
    """All of it as text."""
    return "".join(_text(family) for family in (*_sites(now.sites), *_runs(now.runs), *_server(now)))


def _server(now: Now) -> Iterable[Family]:
    up = [({"process": name}, float(state == "up")) for name, state in now.processes.items()]
    yield Family("consilium_process_up", "gauge", "Whether a process of the server is up.", up)
    yield Family("consilium_looked_seconds", "gauge", "When this was read, since 1970.", [({}, now.at)])


def _sites(sites: Iterable[SiteNow]) -> Iterable[Family]:
    members = [site for site in sites if site.state == "member"]

    def each(name: str, words: str, value: str) -> Family:
        found = [({"site": site.name}, _number(getattr(site, value))) for site in members]
        return Family(f"consilium_site_{name}", "gauge", words, found)

    yield each("online", "Whether it was heard within a minute.", "online")
    yield each("silent_seconds", "Since it was last heard.", "seen_s")
    yield each("clock_skew_seconds", "Its clock less the server's.", "skew_s")
    yield each("disk_free_gigabytes", "Free disk, rounded down, as it said last.", "disk_free_gb")
    yield each("gpus", "GPUs, as it said last.", "gpus")
    yield each("epsilon", "Privacy spent by its worst patient, as it said last.", "epsilon")
    yield each("certificate_days", "Until its certificate ends.", "certificate_days")
    versions = [({"site": s.name, "version": s.version}, 1.0) for s in members if s.version]
    yield Family("consilium_site_version", "gauge", "The installed release, as it said last.", versions)


def _runs(runs: Iterable[RunNow]) -> Iterable[Family]:
    told = list(runs)
    done = [({"study": run.name}, float(run.round)) for run in told]
    yield Family("consilium_run_rounds", "gauge", "Completed rounds.", done)
    states = [({"study": run.name, "state": run.state}, 1.0) for run in told]
    yield Family("consilium_run_state", "gauge", "How a study stands.", states)
    refused = [({"study": run.name}, float(len(run.refused))) for run in told]
    yield Family("consilium_run_refused_sites", "gauge", "Sites refused in the round under way.", refused)
    for way in ("up", "down"):
        total = [
            ({"study": run.name}, float(sum(getattr(r, f"bytes_{way}") for r in run.rounds))) for run in told
        ]
        yield Family(f"consilium_run_{way}_bytes", "gauge", f"Bytes {way}, of completed rounds.", total)
    last = [({"study": run.name}, run.rounds[-1].seconds if run.rounds else None) for run in told]
    yield Family("consilium_run_last_round_seconds", "gauge", "How long the last round took.", last)
    metrics = [
        ({"study": run.name, "site": site, "model": model}, value)
        for run in told
        for site, models in run.metrics.items()
        for model, value in models.items()
    ]
    yield Family("consilium_site_auroc", "gauge", "AUROC on test patients, where it was released.", metrics)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (bool, int, float)) else None


def _text(family: Family) -> str:
    lines = [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
    for labels, value in family.samples:
        if value is not None:
            inside = ",".join(f'{name}="{_escaped(word)}"' for name, word in labels.items())
            lines.append(f"{family.name}{{{inside}}} {value!r}" if inside else f"{family.name} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
