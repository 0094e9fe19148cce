"""What a site holds, as one self-contained page that stays in the hospital: `consilium-site status --html`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.intake.process import DISCARDED
from client.intake.summary import RefusedRow
from client.quality import ENOUGH_IMAGES
from client.quality_site import ENOUGH_PATIENTS
from client.report.distributions import ScannerQuality, histogram, strip
from common.pages.page import Cell, Table, csv_uri, moment, render, write_whole

if TYPE_CHECKING:
    from client.commands.status import Status

_GONE: Final = {DISCARDED.code: (DISCARDED.rule, DISCARDED.remedy)}
_NOT_KEPT: Final = (
    "its original is no longer kept",
    "Send the file again if it is wanted; its reason is then named",
)
"""Rule and remedy of a reason of which nothing lies in quarantine any more."""


@dataclass(frozen=True)
class Holdings:
    """What the page shows."""

    status: Status
    refused: Sequence[RefusedRow]
    quality: Sequence[ScannerQuality]
    spent: str
    """The ledger in one sentence."""


def write_holdings(data: Holdings, path: Path) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        StorageError: when the file cannot be written.
    """
    write_whole(holdings_html(data), path)


def holdings_html(data: Holdings) -> str:
    """The page as text."""
    values: dict[str, Any] = {
        "status": data.status,
        "moment": moment(datetime.now(UTC).isoformat()),
        "cards": list(_cards(data.status)),
        "refused": _refused(data),
        "scanners": [_scanner(one) for one in data.quality if one.strips],
        "enough_images": ENOUGH_IMAGES,
        "enough_patients": ENOUGH_PATIENTS,
        "numbers": _numbers(data.quality),
        "readers": _readers(data.status),
        "labels_said": _labels_said(data.status),
        "splits": _splits(data.status),
        "twins_said": _twins_said(data.status),
        "spent": data.spent,
    }
    return render("holdings.html", Path(__file__).parent, values)


def _cards(status: Status) -> Iterator[tuple[str, str]]:
    yield f"{status.patients:,}", "patients"
    yield f"{status.images:,}", "images"
    yield f"{status.volumes:,}", "CT and MR volumes"
    yield f"{status.labelled:,}", "images with a label"
    yield f"{sum(status.refused.values()):,}", "files refused or waiting"
    yield f"{status.withdrawn:,}", "patients withdrawn"


def _refused(data: Holdings) -> Table:
    reasons = {row.code: row for row in data.refused}
    rows = []
    for code, count in data.status.refused.items():
        row = reasons.get(code)
        rule, remedy = (row.rule, row.remedy) if row else _GONE.get(code, _NOT_KEPT)
        cells = (Cell(code), Cell(f"{count:,}"), Cell(rule, "text"), Cell(remedy, "text"))
        rows.append(cells)
    head = ("Reason", "Files", "Rule", "What to do")
    return Table("Files that stayed behind, over all ingestions", head, tuple(rows))


def _scanner(one: ScannerQuality) -> dict[str, Any]:
    own = f"own bounds from {one.from_images:,} images" if one.from_images else "default bounds only"
    refused = (
        ", ".join(f"{count} {code}" for code, count in one.refused.items()) or "none refused by the gate"
    )
    name = one.name or "unknown device"
    return {
        "title": f"{one.modality or 'other'}: {name}",
        "said": f"{one.code or 'no serial number'} · {one.images:,} images of {one.patients:,} patients · {own} · {refused}",
        "strips": [strip(drawn) for drawn in one.strips],
    }


def _numbers(quality: Sequence[ScannerQuality]) -> str:
    """Counts by bin of what was taken in, however many images there are; each refused one by itself."""
    rows: list[tuple[str | float, ...]] = []
    for one in quality:
        for drawn in one.strips:
            where = (one.modality, one.code, drawn.figure)
            counts, edges = histogram(drawn)
            for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
                if count:
                    rows.append((*where, "accepted", float(low), float(high), int(count)))
            rows += [(*where, "refused", value, value, 1) for value in drawn.refused]
    return csv_uri(("modality", "scanner", "figure", "outcome", "from", "to", "images"), rows)


def _readers(status: Status) -> Table:
    rows = tuple(
        (
            Cell(one.source),
            Cell(one.version),
            Cell(f"{one.images:,}"),
            Cell(f"{one.current:,}"),
            Cell(", ".join(f"{label}: {count:,}" for label, count in one.classes.items()), "text"),
        )
        for one in status.readers.readers
    )
    head = ("Source", "Version", "Images", "Current for", "Classes")
    return Table("Who labelled what", head, rows)


def _labels_said(status: Status) -> str:
    counts = status.readers
    return (
        f"{counts.labelled:,} of {counts.images:,} images have a label. {counts.read_twice:,} were labelled by two "
        f"sources or more, and {counts.disagreements:,} of them not alike. {counts.waiting:,} labels wait for an image."
    )


def _splits(status: Status) -> Table:
    rows = [
        (Cell(split if " " in split else f"drawn, {split[:8]}"), Cell(part, "text"), Cell(f"{count:,}"))
        for split, parts in status.splits.items()
        for part, count in parts.items()
    ]
    return Table("Patients by part", ("Split", "Part", "Patients"), tuple(rows))


def _twins_said(status: Status) -> str:
    shared = status.shared
    if not shared.groups:
        return "No picture stands under two patients."
    return (
        f"{shared.images} images of {shared.patients} patients are {shared.groups} pictures that stand under two "
        "patients or more. They are in no training, validation or test. Find out at the source whose they are."
    )
