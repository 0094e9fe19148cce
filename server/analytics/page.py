"""The page of an analysis: what is different between the hospitals, and what will come of it; one file, nothing fetched."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from markupsafe import Markup

from common.pages.page import NOTHING, Cell, Figure, Table, csv_uri, moment, render, write_whole
from server.analytics import drawings
from server.analytics.distance import (
    Row,
    against,
    chance_of,
    divergence,
    labels_of,
    prevalence,
    spread_of,
    table_of,
)
from server.analytics.records import AnalysisRecord, Bins
from server.analytics.trouble import looks_made, predicted
from server.analytics.words import Trouble

TITLES: Final = {
    "age": "Age in years",
    "sex": "Sex",
    "projection": "Projection",
    "modality": "Modality",
    "manufacturer": "Manufacturer of the machine",
    "images": "Images of one patient",
    "median": "Brightness: the middle grey value",
    "spread": "Range of grey values in use",
    "exposure": "Exposure: where the middle grey lies in the range",
    "contrast": "Contrast: the part of the range in use",
    "noise": "Noise, relative to the range in use",
    "sharpness": "Sharpness: fine detail, relative to all detail",
    "finding": "Which finding",
}

PAGE: Final = "survey.html"
"""Its name, beside the record."""
_LINES: Final = 8
"""Hospitals that are told one by one under the same trouble."""


def write_page(record: AnalysisRecord, path: Path) -> None:
    """Write the page of an analysis.

    Raises:
        StorageError: the folder cannot be written to.
    """
    write_whole(page(record), path)


def page(record: AnalysisRecord) -> str:
    """The page as text."""
    axes = [axis for axis in record.axes if axis.axis != "patients"]
    figures = [one for axis in axes if (one := _figure(record, axis)) is not None]
    return render(
        "survey.html",
        Path(__file__).parent,
        {
            "record": record,
            "moment": moment(record.created),
            "troubles": _grouped(predicted(record)),
            "tests": looks_made(record),
            "cards": _cards(record),
            "labels": _labels(record),
            "keys": drawings.key(),
            "distances": _distances(record),
            "figures": figures,
        },
    )


def _grouped(troubles: Sequence[Trouble]) -> list[dict[str, object]]:
    """The same trouble at several hospitals as one, what was seen at each a line."""
    groups: dict[tuple[str, str], list[Trouble]] = {}
    for one in troubles:
        groups.setdefault((one.kind, one.axis), []).append(one)
    found: list[dict[str, object]] = []
    for several in groups.values():
        first, count = several[0], len(several)
        title = (
            first.title.replace(f" at {first.where}", f" at {count} hospitals") if count > 1 else first.title
        )
        seen = [f"{one.where}: {one.seen}" if count > 1 else one.seen for one in several]
        found.append(
            {
                "kind": first.kind,
                "title": title,
                "seen": seen[:_LINES],
                "more": max(0, count - _LINES),
                "will": first.will,
                "do": first.do,
                "p": max((one.p for one in several if one.p is not None), default=None),
            }
        )
    return found


def _cards(record: AnalysisRecord) -> list[dict[str, str]]:
    ill, well = prevalence(record, record.parts)
    everybody = sum(float(labels_of(part).sum()) for part in record.parts)
    share = f"{ill / (ill + well):.0%}" if ill + well else NOTHING
    there = len({site for part in record.parts for site in part.sites})
    return [
        {"figure": f"{everybody:,.0f}", "text": "patients, about; small cells are held back"},
        {"figure": share, "text": "of the labelled patients are positive"},
        {"figure": f"{there} of {len(record.wanted)}", "text": "hospitals took part"},
        {"figure": str(len(record.own)), "text": "show cells under their own name"},
    ]


def _labels(record: AnalysisRecord) -> Figure | None:
    if not record.positive:
        return None
    ill, well = prevalence(record, record.parts)
    whole = ill / (ill + well) if ill + well else 0.0
    each = {part.name: prevalence(record, [part]) for part in record.parts}
    drawn = [drawings.divided(name, *two, whole) for name, two in each.items()]
    return Figure(
        "How many are positive",
        _grid(drawn),
        note="The share of positives among labelled patients; the upright line is that of all together.",
        csv=csv_uri(
            ("part", "positive", "not"), [(name, round(i), round(w)) for name, (i, w) in each.items()]
        ),
    )


def _figure(record: AnalysisRecord, axis: Bins) -> Figure | None:
    rows = {part.name: spread_of(part, axis.axis) for part in record.parts}
    known = {name: row for name, row in rows.items() if row is not None}
    if not known:
        return None
    whole = np.where(
        np.isnan(np.array(list(known.values()))).all(axis=0),
        math.nan,
        np.nansum(list(known.values()), axis=0),
    )
    # A bin in which nobody is shown anywhere takes room and says nothing.
    kept = [place for place in range(len(axis.bins)) if np.nan_to_num(whole[place]) > 0]
    bins = tuple(axis.bins[place] for place in kept)
    drawn = [drawings.panel(name, bins, row[kept], whole[kept]) for name, row in known.items() if kept]
    numbers = [
        (part.name, label, name, "" if math.isnan(cell) else round(float(cell)))
        for part in record.parts
        if (table := table_of(part, axis.axis)) is not None
        for label, cells in zip(record.labels, table, strict=True)
        for name, cell in zip(axis.bins, cells, strict=True)
    ]
    left = len(axis.bins) - len(kept)
    return Figure(
        TITLES.get(axis.axis, axis.axis),
        _grid(drawn) if kept else Markup("<p>Every cell is held back.</p>"),
        note=f"{left} bins in which nobody is shown are left out." if left and kept else "",
        csv=csv_uri(("part", "label", "bin", "patients"), numbers),
    )


def _distances(record: AnalysisRecord) -> Table | None:
    """Each part against all others: divergence in bits, beside what chance alone gives."""
    if len(record.parts) < 2:
        return None
    rows, numbers = [], []
    for axis in record.axes[1:]:
        cells, compared = [Cell(TITLES.get(axis.axis, axis.axis))], against(record, axis.axis)
        for part in record.parts:
            found, chance = _distance(
                compared.get(part.name), f"{record.plan_digest} {part.name} {axis.axis}"
            )
            beyond = found > chance
            cells.append(
                Cell(NOTHING, "muted")
                if math.isnan(found)
                else Cell(f"{found:.3f}", "weak" if beyond else "", f"chance {chance:.3f}")
            )
            numbers.append(
                (axis.axis, part.name, *(None if math.isnan(v) else round(v, 4) for v in (found, chance)))
            )
        rows.append(tuple(cells))
    return Table(
        "How far each hospital is from the others",
        ("", *(part.name for part in record.parts)),
        tuple(rows),
        csv=csv_uri(("axis", "part", "bits", "chance"), numbers),
        note="Jensen-Shannon divergence in bits: 0 is the same, 1 has nothing in common. Below it, what nineteen of twenty hospitals "
        "of that size show by chance alone; each cell by itself, without correction. The warnings above are corrected.",
    )


def _distance(compared: tuple[Row, Row] | None, seed: str) -> tuple[float, float]:
    if compared is None:
        return math.nan, math.nan
    return divergence(*compared), chance_of(*compared, zlib.crc32(seed.encode()))


def _grid(drawn: list[Markup]) -> Markup:
    return Markup('<div class="grid">') + Markup("").join(drawn) + Markup("</div>")
