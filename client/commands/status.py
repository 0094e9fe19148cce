"""What a site holds, what it refused, what it has spent, and how much room there is."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.commands.options import HERE, SiteFolder
from client.commands.status_table import DRAWN, SAID, budget, many, status_table
from common.cli import JsonFlag, show
from common.errors import LedgerError

__all__ = ["DRAWN", "SAID", "Disk", "SharedPictures", "Spending", "Status", "many", "read_status", "status"]

if TYPE_CHECKING:
    from client.index import ImageRow, Index
    from client.intake.receipt import Receipt
    from client.intake.relabel import LabelCounts
    from client.site import Site
    from client.standing import Standing


@dataclass(frozen=True)
class Spending:
    """The privacy ledger in short."""

    epsilon: float | None
    """Of the patient who spent most, over all studies; None before any private training, or unbounded."""
    unbounded: bool
    """Whether a patient was in a training without privacy."""
    delta: float
    charges: int
    warnings: tuple[str, ...] = ()
    """Limits (`run`, `year`, `lifetime`) of which the worst patient has spent four fifths or more."""
    problem: str = ""
    """Code, when the ledger cannot be read just now."""


@dataclass(frozen=True)
class Disk:
    """Bytes under the site's data folder, by part, and how many are free there."""

    used: dict[str, int]
    free: int


@dataclass(frozen=True)
class SharedPictures:
    """Pictures that stand under two patients or more; no split uses them."""

    groups: int
    images: int
    patients: int


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
    readers: LabelCounts
    """Who labelled what, where they disagree, and labels that wait for an image."""
    shared: SharedPictures
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
    standing: Standing
    """In the federation."""


def status(
    site: SiteFolder = HERE,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with every check's distribution; it stays in the hospital."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what this site holds, refused and spent, its policy, and how much disk is left."""
    result = read_status(site)
    if html is not None:
        _write_page(site, result, html)
    show(result, as_json, lambda: status_table(result) if html is None else f"Written to {html}.")


def _write_page(folder: Path, result: Status, path: Path) -> None:
    from client.index import Index
    from client.intake.summary import cli_rows
    from client.report.distributions import distributions
    from client.report.holdings import Holdings, write_holdings
    from client.site import load_site

    site = load_site(folder)
    with Index(site.index) as index:
        quality = distributions(index)
    spent = "; ".join(f"{what}: {value}" for what, value in budget(result))
    write_holdings(Holdings(result, cli_rows(site), quality, spent), path)


def read_status(folder: Path) -> Status:
    """Count what the site in `folder` holds.

    Raises:
        SettingsError: no site there. StorageError: its index cannot be read.
    """
    from client.intake.receipt import last_receipt
    from client.site import load_site
    from client.standing import standing

    site = load_site(folder)
    held = _held(site)
    images, spending = held.images, _spent(site)
    return Status(
        site=site.name,
        simulated=site.simulated,
        patients=held.patients,
        withdrawn=held.withdrawn,
        images=len(images),
        volumes=held.volumes,
        labelled=sum(image.label is not None for image in images),
        labels=_counted(str(image.label) for image in images if image.label is not None),
        readers=held.readers,
        shared=_shared(images),
        splits=held.splits,
        modalities=_counted(image.modality for image in images),
        manufacturers=_counted(image.manufacturer for image in images),
        scanners=_counted(f"{i.manufacturer} {i.model} {i.scanner}".strip() for i in images),
        refused={code: count for code, count in held.outcomes.items() if code != "accepted"},
        ingests=held.ingests,
        last_ingest=last_receipt(site),
        policy={key: value for key, value in vars(site.policy).items() if not key.startswith("_")},
        epsilon_spent=spending.epsilon,
        ledger=spending,
        disk=_disk(site.data),
        standing=standing(site),
    )


@dataclass(frozen=True)
class _Held:
    """What one look into the index tells."""

    images: Sequence[ImageRow]
    patients: int
    withdrawn: int
    outcomes: dict[str, int]
    volumes: int
    ingests: int
    splits: dict[str, dict[str, int]]
    readers: LabelCounts


def _held(site: Site) -> _Held:
    from client.index import Index
    from client.intake.relabel import count_labels

    with Index(site.index) as index:
        images, everyone = index.images(), index.patients(withdrawn=True)
        present = sum(patient.withdrawn_at is None for patient in everyone)
        return _Held(
            images=images,
            patients=present,
            withdrawn=len(everyone) - present,
            outcomes=index.outcomes(),
            volumes=len(index.volumes()),
            ingests=len(index.ingests()),
            splits=_splits(index, images),
            readers=count_labels(index),
        )


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _shared(images: Sequence[ImageRow]) -> SharedPictures:
    from client.twins import twins

    groups = twins(images)
    found = [image for group in groups for image in group]
    return SharedPictures(len(groups), len(found), len({image.patient for image in found}))


def _splits(index: Index, images: Sequence[ImageRow]) -> dict[str, dict[str, int]]:
    said = {image.patient: image.split or DRAWN for image in images}
    return {SAID: _counted(said.values()), **index.drawn()}


def _spent(site: Site) -> Spending:
    from client.privacy.ledger import Ledger
    from client.privacy.limits import Limits

    delta = site.policy.max_delta
    try:
        with Ledger(site.ledger, simulated=site.simulated) as ledger:
            charges = len(ledger.charges)
            worst = ledger.epsilon(delta) if charges else None
            limits = Limits.of_policy(site.policy)
            near = tuple(usage.span.value for usage in ledger.usage(limits) if usage.near)
    except LedgerError as error:
        return Spending(None, unbounded=False, delta=delta, charges=0, problem=error.code)
    unbounded = worst is not None and math.isinf(worst)
    return Spending(None if unbounded else worst, unbounded, delta, charges, near)


def _disk(data: Path) -> Disk:
    parts = {part.name: part for part in sorted(data.iterdir()) if part.is_dir()} if data.is_dir() else {}
    used = {name: _bytes(part.rglob("*")) for name, part in parts.items()}
    used["index"] = _bytes(data.glob("index.sqlite*"))
    return Disk(used, shutil.disk_usage(data if data.is_dir() else data.parent).free)


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
