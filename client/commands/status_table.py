"""The status of a site as rows of one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from common.cli import grid

if TYPE_CHECKING:
    from client.commands.status import Status

SAID: Final = "label table"
DRAWN: Final = "to be drawn"
_PARTS: Final = ("train", "validation", "test", DRAWN)
_STEP: Final = 1000.0
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def status_table(status: Status) -> Table:
    """The status as a terminal shows it."""
    blocks = (
        _holdings(status),
        _devices(status),
        _refusals(status),
        budget(status),
        _standing(status),
        _rules(status),
        _room(status),
    )
    rows = [list(block) for block in blocks]
    title = f"Site {status.site}" + (" (simulated)" if status.simulated else "")
    table = grid(title, ("what", "value"), (row for block in rows for row in block))
    end = 0
    for block in rows:
        end += len(block)
        if block:
            table.rows[end - 1].end_section = True
    return table


def _holdings(status: Status) -> Iterator[tuple[str, str]]:
    left = f" ({status.withdrawn} withdrawn)" if status.withdrawn else ""
    yield "patients", f"{status.patients}{left}"
    yield "images", f"{status.images}, {status.labelled} with a label"
    if status.volumes:
        yield "CT and MR volumes", str(status.volumes)
    for label, count in status.labels.items():
        yield f"label {label}", many(count, "image")
    if status.readers.read_twice:
        told = f"{status.readers.read_twice}, {status.readers.disagreements} of them not alike"
        yield "labelled by two readers or more", told
    if status.readers.waiting:
        yield "labels that wait for an image", str(status.readers.waiting)
    if status.shared.groups:
        yield "pictures that two patients share", f"{status.shared.groups}, used in no split"
    for split, parts in status.splits.items():
        name = "patients as labels say" if split == SAID else f"patients as drawn ({split[:8]})"
        if parts:
            yield name, ", ".join(f"{part} {parts[part]}" for part in _PARTS if part in parts)


def _devices(status: Status) -> Iterator[tuple[str, str]]:
    for modality, count in status.modalities.items():
        yield f"modality {modality}", many(count, "image")
    models: dict[str, list[int]] = {}
    for scanner, count in status.scanners.items():
        models.setdefault(scanner.rpartition(" ")[0] or "unknown maker", []).append(count)
    for model, counts in models.items():
        yield model, f"{many(sum(counts), 'image')} of {many(len(counts), 'scanner')}"


def _refusals(status: Status) -> Iterator[tuple[str, str]]:
    for code, count in status.refused.items():
        yield f"refused: {code}", many(count, "file")
    if status.refused:
        yield "why, and what to do", "consilium-site quarantine list"
    last = status.last_ingest
    if last is not None:
        yield "ingestions", f"{status.ingests}, the last {last.time[:16].replace('T', ' ')} UTC"
        told = f"{many(last.files, 'file')}, {last.images} new, {sum(last.refused.values())} refused"
        yield "last ingestion", told


def budget(status: Status) -> Iterator[tuple[str, str]]:
    """The privacy ledger in words."""
    ledger, ceiling = status.ledger, status.policy["max_epsilon_lifetime"]
    if ledger.problem == "ledger-locked":
        yield "privacy budget spent", "in use by the service or a training; ask again later"
    elif ledger.problem:
        yield "privacy budget spent", f"unknown: {ledger.problem}"
    elif ledger.unbounded:
        yield "privacy budget spent", "without bound: patients were in a training without privacy"
    elif ledger.epsilon is None:
        yield "privacy budget spent", f"nothing of ε {ceiling:g}"
    else:
        yield (
            "privacy budget spent",
            f"ε {ledger.epsilon:.2f} of {ceiling:g} (worst patient, δ {ledger.delta:g})",
        )
    for span in ledger.warnings:
        limit = {"run": "of one run", "year": "of a year", "lifetime": "for life"}[span]
        yield "WARNING", f"four fifths or more of the limit {limit} are spent: consilium-site ledger show"


def _standing(status: Status) -> Iterator[tuple[str, str]]:
    here = status.standing
    if here.problem:
        yield "federation", f"what was pinned cannot be believed: {here.problem}"
    elif here.federation:
        yield "federation", f"{here.federation}, roster version {here.roster}"
        yield "the consortium's key", here.server
    elif not status.simulated:
        yield "federation", "not enrolled: consilium-site enrol"
    if here.last_contact:
        when = here.last_contact[:16].replace("T", " ")
        yield "last asked", f"{when} UTC: {here.asked}, round {here.round} of {here.run}"
    if here.messages:
        yield (
            "left so far",
            f"{many(here.messages, 'message')}, {human(here.bytes)}: consilium-site egress show",
        )
    if here.witnessed:
        yield "audit logs sworn to by both", here.witnessed


def _rules(status: Status) -> Iterator[tuple[str, str]]:
    policy: Mapping[str, Any] = status.policy
    yield "policy: training without privacy", "allowed" if policy["allow_non_private"] else "refused"
    yield "policy: most ε of one run", f"{policy['max_epsilon_per_run']:g}"
    yield "policy: most ε of one year", f"{policy['max_epsilon_per_year']:g}"
    yield "policy: most δ, most clip", f"{policy['max_delta']:g}, {policy['max_clip']:g}"
    yield "policy: fewest training patients", str(policy["min_patients"])
    yield "policy: fewest patients in a figure", str(policy["min_cell"])
    yield "policy: networks", ", ".join(policy["networks"]) or "all of this release"


def _room(status: Status) -> Iterator[tuple[str, str]]:
    for name, size in status.disk.used.items():
        if size:
            yield f"disk: {name}", human(size)
    yield "disk: free", human(status.disk.free)


def many(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def human(size: float) -> str:
    """Bytes with a unit that a person reads, in powers of 1000 as disks are sold."""
    for unit in _UNITS[:-1]:
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"
