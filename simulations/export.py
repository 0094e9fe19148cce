"""The archives of virtual hospitals, for a reader who wants to take them in by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from common.cli import grid
from common.errors import InputError
from simulations.board import board
from simulations.crew import crew
from simulations.hospitals import Truth, default_federation, write_federation


@dataclass(frozen=True)
class Exported:
    """One hospital's export: what a PACS would have written, and what is really in it."""

    hospital: str
    folder: Path
    labels: Path
    patients: int
    files: int
    traps: dict[str, int]
    """Files that a careful intake refuses, by what is wrong with them."""


def export(folder: Path, hospitals: int, patients: int, seed: int) -> tuple[Exported, ...]:
    """Write the identified DICOM and the labels of virtual hospitals into `folder/<hospital>`.

    Args:
        folder: must be empty or not there.
        hospitals: how many.
        patients: of all of them together.
        seed: the same seed writes the same bytes.

    Raises:
        InputError: when the folder holds something.
        DataError: when a hospital would have too few patients.
        StorageError: when it cannot be written.
    """
    specs = default_federation(n_hospitals=hospitals, n_patients=patients)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(folder.name, "it holds something already", "Choose an empty folder")
    places = [(spec, folder / spec.name) for spec in specs]
    with board() as bars, crew(bars) as hands:
        told = partial(bars.tick, "image the virtual patients")
        truths = write_federation(places, seed, progress=told, pool=hands.pool)
    return tuple(_exported(truth, place) for truth, (_, place) in zip(truths, places, strict=True))


def table(exported: tuple[Exported, ...]) -> Table:
    """One row a hospital."""
    columns = ("hospital", "folder", "patients", "files", "of them not to be taken in")
    rows = (
        (
            e.hospital,
            e.folder,
            e.patients,
            e.files,
            ", ".join(f"{n} {t}" for t, n in e.traps.items()) or "none",
        )
        for e in exported
    )
    return grid("Identified DICOM of patients who do not exist", columns, rows)


def _exported(truth: Truth, folder: Path) -> Exported:
    traps = Counter(image.trap for image in truth.images if image.trap)
    return Exported(
        hospital=truth.hospital,
        folder=folder,
        labels=folder / "labels.csv",
        patients=truth.patients(),
        files=len(truth.images),
        traps=dict(sorted(traps.items())),
    )
