"""All kinds in one order, written as two exports: DICOM by accession, pictures by path; with their tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.intake.parse import quiet
from tests.client.acceptance import drawn, letters, objects, paths, pictures, places, syntaxes, values
from tests.client.acceptance.case import Canary, Case

DICOM: Final = (
    *values.CASES,
    *places.CASES,
    *letters.CASES,
    *syntaxes.CASES,
    *objects.CASES,
    *drawn.CASES,
    *paths.CASES,
)
PICTURES: Final = pictures.CASES
CASES: Final = (*DICOM, *PICTURES)


@dataclass(frozen=True)
class Nasty:
    """One file as it lies in the export."""

    case: Case
    canary: Canary
    path: Path
    data: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        """Row of the table."""
        return self.case.kind


@dataclass(frozen=True)
class Export:
    """A folder and its table of labels."""

    folder: Path
    labels: Path
    files: tuple[Nasty, ...]


def write_dicom(folder: Path) -> Export:
    """The DICOM kinds, labelled by accession; the table has a column of names, as hospitals' tables do."""
    files = _write(folder, DICOM)
    rows = [
        (
            one.canary.accession,
            one.canary.number % 2,
            "acceptance",
            "1",
            one.canary.word,
            f"{one.canary.born}",
        )
        for one in files
        if one.case.labelled
    ]
    head = ("accession", "label", "source", "version", "patient name", "born")
    return Export(folder, _table(folder.parent / "labels.csv", head, rows), files)


def write_pictures(folder: Path) -> Export:
    """The pictures, labelled by path, with the hospital's own numbers."""
    files = _write(folder, PICTURES)
    rows = [
        (
            one.path.relative_to(folder).as_posix(),
            one.canary.number % 2,
            one.canary.patient,
            "64",
            "F",
            "PA",
            one.canary.word,
        )
        for one in files
    ]
    head = ("path", "label", "patient_id", "age", "sex", "view", "remark")
    return Export(folder, _table(folder.parent / "pictures.csv", head, rows), files)


def _write(folder: Path, cases: Sequence[Case]) -> tuple[Nasty, ...]:
    made = []
    for case in cases:
        canary = Canary(CASES.index(case) + 1)
        with quiet():
            data = case.make(canary)
        path = folder / case.name.format(
            number=canary.number, word=canary.word, born=canary.born, digits=canary.digits
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made.append(Nasty(case, canary, path, data))
    return tuple(made)


def _table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


__all__ = ["CASES", "DICOM", "PICTURES", "Export", "Nasty", "write_dicom", "write_pictures"]
