"""The groups a report compares, each beside the band of chance, and which of them are weak.

Groups are hospitals, manufacturers, projections and whatever else the plan released. A group that spans
hospitals is combined from the hospitals' own released figures; patients never meet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from common.messages import Estimate, GroupMetrics, ModelMetrics
from server.records import RunRecord
from server.reports.chance import Band, Stratum, chance_band, combine, released_by_formula
from server.reports.select import absent, all_series, group_of, levels, main_series, once, plan_of, sites

__all__ = ["Band", "GroupRow", "chance_band", "confidence_of", "family_name", "group_rows", "weak_groups"]

FAMILIES: Final = ("hospital", "manufacturer", "projection", "sex", "age")

_FAMILY_NAMES: Final = {
    "hospital": "Hospital",
    "site": "Hospital",
    "manufacturer": "Scanner manufacturer",
    "projection": "Projection",
    "sex": "Sex",
    "age": "Age",
}


@dataclass(frozen=True)
class GroupRow:
    """One group of test patients under one model, beside the same group at each hospital alone."""

    family: str
    name: str
    auroc: Estimate | None
    alone: Estimate | None
    counts: tuple[Stratum, ...]
    """Positives and negatives at each hospital whose AUROC entered."""
    sites: tuple[str, ...]
    absent: str = ""
    """Why there is no AUROC, where there is none."""
    band: Band | None = None

    @property
    def patients(self) -> int:
        """Test patients behind the AUROC."""
        return sum(p + n for p, n in self.counts)

    @property
    def weak(self) -> bool:
        """Whether the AUROC lies below what chance alone would give."""
        return self.auroc is not None and self.band is not None and self.auroc.value < self.band.low


def family_name(family: str) -> str:
    """A family of groups in words."""
    return _FAMILY_NAMES.get(family, family)


def confidence_of(record: RunRecord) -> float:
    """The confidence of the released intervals, in (0, 1); 0.95 where the plan is not in the record."""
    plan = plan_of(record)
    return plan.evaluation.confidence if plan else 0.95


def group_rows(record: RunRecord, series: str | None = None) -> list[GroupRow]:
    """Every group under one model (the report's main one when not said), with its band."""
    name = series or main_series(record)
    if name is None:
        return []
    kept = _all_rows(record)
    if name not in kept:
        kept[name] = _rows_of(record, name)
    return list(kept[name])


@once
def _all_rows(_record: RunRecord) -> dict[str, list[GroupRow]]:
    """Rows of each model that were made; a thousand hospitals' bands are worked out once."""
    return {}


def _rows_of(record: RunRecord, name: str) -> list[GroupRow]:
    rows = [
        _row(record, name, family, level)
        for family in FAMILIES
        for level in (sites(record) if family == "hospital" else levels(record, family))
    ]
    return _with_bands(rows, confidence_of(record))


def weak_groups(record: RunRecord, series: str | None = None) -> list[GroupRow]:
    """The groups below the band of chance, scanners first, then projections, then hospitals."""
    order = ("manufacturer", "projection", "hospital", "sex", "age")
    weak = [row for row in group_rows(record, series) if row.weak]
    return sorted(weak, key=lambda row: (order.index(row.family), row.auroc.value if row.auroc else 1.0))


def _row(record: RunRecord, series: str, family: str, level: str) -> GroupRow:
    everything = all_series(record)
    found = _released(record, everything.get(series, {}), family, level)
    confidence = confidence_of(record)
    auroc = _combined(list(found.values()), confidence)
    alone = None
    if series != "alone":
        beside = _released(record, everything.get("alone", {}), family, level)
        alone = _combined([g for site, g in beside.items() if site in found], confidence)
    counts = tuple((g.positives or 0, g.negatives or 0) for g in found.values())
    why = "" if auroc is not None else _why(record, everything.get(series, {}), family, level)
    return GroupRow(family, level, auroc, alone, counts, tuple(found), why)


def _why(record: RunRecord, by_site: dict[str, ModelMetrics], family: str, level: str) -> str:
    if family == "hospital":
        return absent(group_of(by_site.get(level)))
    groups = [group_of(by_site.get(site), family, level) for site in sites(record)]
    return next((absent(group) for group in groups if group is not None), absent(None))


def _released(
    record: RunRecord, by_site: dict[str, ModelMetrics], family: str, level: str
) -> dict[str, GroupMetrics]:
    found: dict[str, GroupMetrics] = {}
    hospital = family == "hospital"
    for site in (level,) if hospital else sites(record):
        group = group_of(by_site.get(site)) if hospital else group_of(by_site.get(site), family, level)
        if group is not None and group.auroc is not None and group.positives and group.negatives:
            found[site] = group
    return found


def _combined(groups: list[GroupMetrics], confidence: float) -> Estimate | None:
    estimates = [g.auroc for g in groups if g.auroc is not None]
    if len(estimates) <= 1:
        return estimates[0] if estimates else None
    counts = [(g.positives or 0, g.negatives or 0) for g in groups]
    return combine(estimates, counts, confidence)


def _with_bands(rows: list[GroupRow], confidence: float) -> list[GroupRow]:
    sizes = Counter(row.family for row in rows if row.auroc is not None)
    comparable = [row for row in rows if row.auroc is not None and sizes[row.family] > 1]
    found: dict[tuple[str, str], Band | None] = {}
    for family in FAMILIES:
        members = [row for row in comparable if row.family == family]
        estimates = [row.auroc for row in members if row.auroc is not None]
        counts = [row.counts for row in members]
        bands = chance_band(
            [e.value for e in estimates],
            counts,
            confidence=confidence,
            together=len(comparable),
            scale=released_by_formula(estimates, counts, confidence),
        )
        for row, band in zip(members, bands, strict=True):
            found[row.family, row.name] = band
    return [replace(row, band=found.get((row.family, row.name))) for row in rows]
