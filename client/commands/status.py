"""What a site holds, what it refused, what it has spent, and how much room there is."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, show
from common.errors import LedgerError

if TYPE_CHECKING:
    from client.index import ImageRow, Index
    from client.intake.receipt import Receipt
    from client.site import Site

SAID: Final = "label table"
DRAWN: Final = "to be drawn"
_PARTS: Final = ("train", "validation", "test", DRAWN)
_STEP: Final = 1000.0
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Spending:
    """The privacy ledger in short."""

    epsilon: float | None
    """Of the patient who spent most, over all studies; None before any private training, or unbounded."""
    unbounded: bool
    """Whether a patient was in a training without privacy."""
    delta: float
    charges: int
    problem: str = ""
    """Code, when the ledger cannot be read just now."""


@dataclass(frozen=True)
class Disk:
    """Bytes under the site's data folder, by part, and how many are free there."""

    used: dict[str, int]
    free: int


@dataclass(frozen=True)
class Status:
    """What a site holds. Exact counts: this stays in the hospital."""

    site: str
    simulated: bool
    patients: int
    withdrawn: int
    images: int
    volumes: int
    labelled: int
    labels: dict[str, int]
    """Label to number of images."""
    splits: dict[str, dict[str, int]]
    """Part to number of patients: as the label tables say, then of each split that a training drew."""
    modalities: dict[str, int]
    manufacturers: dict[str, int]
    scanners: dict[str, int]
    """Maker, model and code of each device to number of images."""
    refused: dict[str, int]
    """Reason to number of distinct files, over all ingestions."""
    ingests: int
    last_ingest: Receipt | None
    policy: dict[str, Any]
    epsilon_spent: float | None
    ledger: Spending
    disk: Disk


def status(site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """Show what this site holds, refused and spent, its policy, and how much disk is left."""
    result = read_status(site)
    show(result, as_json, lambda: _table(result))


def read_status(folder: Path) -> Status:
    """Count what the site in `folder` holds.

    Raises:
        SettingsError: no site there. StorageError: its index cannot be read.
    """
    from client.index import Index
    from client.intake.receipt import last_receipt
    from client.site import load_site

    site = load_site(folder)
    with Index(site.index) as index:
        images = index.images()
        everyone = index.patients(withdrawn=True)
        outcomes = index.outcomes()
        volumes, ingests = len(index.volumes()), len(index.ingests())
        splits = _splits(index, images)
    present = sum(patient.withdrawn_at is None for patient in everyone)
    spending = _spent(site)
    return Status(
        site=site.name,
        simulated=site.simulated,
        patients=present,
        withdrawn=len(everyone) - present,
        images=len(images),
        volumes=volumes,
        labelled=sum(image.label is not None for image in images),
        labels=_counted(str(image.label) for image in images if image.label is not None),
        splits=splits,
        modalities=_counted(image.modality for image in images),
        manufacturers=_counted(image.manufacturer for image in images),
        scanners=_counted(f"{i.manufacturer} {i.model} {i.scanner}".strip() for i in images),
        refused={code: count for code, count in outcomes.items() if code != "accepted"},
        ingests=ingests,
        last_ingest=last_receipt(site),
        policy={key: value for key, value in vars(site.policy).items() if not key.startswith("_")},
        epsilon_spent=spending.epsilon,
        ledger=spending,
        disk=_disk(site.data),
    )


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _splits(index: Index, images: Sequence[ImageRow]) -> dict[str, dict[str, int]]:
    said = {image.patient: image.split or DRAWN for image in images}
    return {SAID: _counted(said.values()), **index.drawn()}


def _spent(site: Site) -> Spending:
    from client.privacy.ledger import Ledger

    delta = site.policy.max_delta
    try:
        with Ledger(site.ledger, simulated=site.simulated) as ledger:
            charges = len(ledger.charges)
            worst = ledger.epsilon(delta) if charges else None
    except LedgerError as error:
        return Spending(None, unbounded=False, delta=delta, charges=0, problem=error.code)
    unbounded = worst is not None and math.isinf(worst)
    return Spending(None if unbounded else worst, unbounded, delta, charges)


def _disk(data: Path) -> Disk:
    parts = {part.name: part for part in sorted(data.iterdir()) if part.is_dir()} if data.is_dir() else {}
    used = {name: _bytes(part.rglob("*")) for name, part in parts.items()}
    used["index"] = _bytes(data.glob("index.sqlite*"))
    return Disk(used, shutil.disk_usage(data if data.is_dir() else data.parent).free)


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _table(status: Status) -> Table:
    blocks = (
        _holdings(status),
        _devices(status),
        _refusals(status),
        _budget(status),
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


def _budget(status: Status) -> Iterator[tuple[str, str]]:
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


def _rules(status: Status) -> Iterator[tuple[str, str]]:
    policy: Mapping[str, Any] = status.policy
    yield "policy: training without privacy", "allowed" if policy["allow_non_private"] else "refused"
    yield "policy: most ε of one run", f"{policy['max_epsilon_per_run']:g}"
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
