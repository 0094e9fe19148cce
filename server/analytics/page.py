"""The page of an analysis: what is different between the hospitals, and what will come of it; one file, nothing fetched."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from markupsafe import Markup

from common.pages.page import NOTHING, Cell, Figure, Table, csv_uri, moment, render, write_whole
from server.analytics import crowd, drawings
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
    far = {axis.axis: _far(record, axis.axis) for axis in axes} if len(record.parts) > 1 else {}
    figures = [one for axis in axes if (one := _figure(record, axis, far.get(axis.axis, {}))) is not None]
    many = len(record.parts) > crowd.MANY
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
            "distances": None if many or not far else _distances(record, far),
            "strips": _strips(far) if many else None,
            "most_named": crowd.MANY,
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
    numbers = csv_uri(
        ("part", "positive", "not"), [(name, round(i), round(w)) for name, (i, w) in each.items()]
    )
    shares = [(name, i / (i + w), round(i + w)) for name, (i, w) in each.items() if i + w >= 1]
    if len(each) > crowd.MANY and shares and 0 < whole < 1:
        far = sum(crowd.outside(one, whole, crowd.LIMITS[1]) for one in shares)
        return Figure(
            "How many are positive",
            crowd.funnel(shares, whole, crowd.WIDE),
            crowd.funnel(shares, whole, crowd.NARROW),
            note=f"One mark for each hospital: the share of positives among its labelled patients, by how many those are. Within "
            f"the broken lines lie nineteen of twenty hospitals that differ by chance alone, within the others all but two of "
            f"a thousand; {far} of {len(shares)} lie outside (diamonds). The level line is all together.",
            csv=numbers,
        )
    return Figure(
        "How many are positive",
        _grid([drawings.divided(name, *two, whole) for name, two in each.items()]),
        note="The share of positives among labelled patients; the upright line is that of all together.",
        csv=numbers,
    )


def _figure(record: AnalysisRecord, axis: Bins, far: Mapping[str, crowd.Distance]) -> Figure | None:
    """A panel for each part; of very many for those furthest from the others."""
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
    chosen = list(known) if len(known) <= crowd.MANY else [n for n in crowd.order_of(far) if n in known]
    drawn = [drawings.panel(n, bins, known[n][kept], whole[kept]) for n in chosen[: crowd.MANY] if kept]
    numbers = [
        (part.name, label, name, "" if math.isnan(cell) else round(float(cell)))
        for part in record.parts
        if (table := table_of(part, axis.axis)) is not None
        for label, cells in zip(record.labels, table, strict=True)
        for name, cell in zip(axis.bins, cells, strict=True)
    ]
    left, rest = len(axis.bins) - len(kept), len(known) - len(drawn)
    notes = (
        [f"The {len(drawn)} furthest from the others of {len(known)}; the download has all."] if rest else []
    )
    notes += [f"{left} bins in which nobody is shown are left out."] if left else []
    return Figure(
        TITLES.get(axis.axis, axis.axis),
        _grid(drawn) if kept else Markup("<p>Every cell is held back.</p>"),
        note=" ".join(notes) if kept else "",
        csv=csv_uri(("part", "label", "bin", "patients"), numbers),
    )


def _far(record: AnalysisRecord, axis: str) -> dict[str, crowd.Distance]:
    """Of each part from all others: divergence in bits, and what chance alone gives."""
    compared = against(record, axis)
    return {
        part.name: _distance(compared.get(part.name), f"{record.plan_digest} {part.name} {axis}")
        for part in record.parts
    }


def _distances(record: AnalysisRecord, far: Mapping[str, Mapping[str, crowd.Distance]]) -> Table:
    """Each part against all others: divergence in bits, beside what chance alone gives."""
    rows = []
    for axis, found in far.items():
        cells = [Cell(TITLES.get(axis, axis))]
        for bits, chance in found.values():
            cells.append(
                Cell(NOTHING, "muted")
                if math.isnan(bits)
                else Cell(f"{bits:.3f}", "weak" if bits > chance else "", f"chance {chance:.3f}")
            )
        rows.append(tuple(cells))
    return Table(
        "How far each hospital is from the others",
        ("", *(part.name for part in record.parts)),
        tuple(rows),
        csv=_bits(far),
        note="Jensen-Shannon divergence in bits: 0 is the same, 1 has nothing in common. Below it, what nineteen of twenty hospitals "
        "of that size show by chance alone; each cell by itself, without correction. The warnings above are corrected.",
    )


def _strips(far: Mapping[str, Mapping[str, crowd.Distance]]) -> Figure:
    """The same of very many hospitals, as a picture."""
    rows = [
        (TITLES.get(axis, axis), found)
        for axis, found in far.items()
        if not all(math.isnan(bits) for bits, _ in found.values())
    ]
    return Figure(
        "How far each hospital is from the others",
        crowd.strips(rows, crowd.WIDE),
        crowd.strips(rows, crowd.NARROW),
        note="A mark for each hospital, by its Jensen-Shannon divergence from all others in bits: 0 is the same, 1 has nothing in common. "
        "Diamonds are beyond what nineteen of twenty hospitals of that size show by chance alone, so one in twenty is one where "
        "nothing is different, and more are where a few are so unlike that all others are unlike them; the warnings above are "
        "corrected for both. At the right, how many are beyond chance. The furthest is named where it is far.",
        csv=_bits(far),
    )


def _bits(far: Mapping[str, Mapping[str, crowd.Distance]]) -> str:
    numbers = [
        (axis, name, *(None if math.isnan(value) else round(value, 4) for value in pair))
        for axis, found in far.items()
        for name, pair in found.items()
    ]
    return csv_uri(("axis", "part", "bits", "chance"), numbers)


def _distance(compared: tuple[Row, Row] | None, seed: str) -> tuple[float, float]:
    if compared is None:
        return math.nan, math.nan
    return divergence(*compared), chance_of(*compared, zlib.crc32(seed.encode()))


def _grid(drawn: list[Markup]) -> Markup:
    return Markup('<div class="grid">') + Markup("").join(drawn) + Markup("</div>")
