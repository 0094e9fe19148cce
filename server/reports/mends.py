"""What mends a weakness, and what it costs whoever is served best: every other model of a run beside the report's own.

From released figures only: paired where the record has a paired difference, otherwise marked unpaired.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.messages import Estimate
from common.pages.page import Cell, Table, csv_uri, difference, estimate
from server.records import RunRecord
from server.reports import select, words


@dataclass(frozen=True)
class Served:
    """A hospital and what the report's model does there."""

    site: str
    auroc: Estimate


@dataclass(frozen=True)
class Mend:
    """One other model at the worst-served and at the best-served hospital."""

    series: str
    worst: tuple[Estimate, bool]
    """Change of AUROC against the report's model, and whether patients were paired."""
    best: tuple[Estimate, bool] | None

    @property
    def helps(self) -> bool:
        """Whether the worst-served hospital gains more than chance explains."""
        return self.worst[0].low > 0

    @property
    def costs(self) -> bool:
        """Whether the best-served hospital loses more than chance explains."""
        return self.best is not None and self.best[0].high < 0


def extremes(record: RunRecord, series: str) -> tuple[Served, Served] | None:
    """The hospitals that trained and are served worst and best; None with fewer than two released AUROCs."""
    by_site = select.all_series(record).get(series, {})
    served = [
        Served(site, group.auroc)
        for site in select.sites(record)
        if site not in record.external
        and (group := select.group_of(by_site.get(site))) is not None
        and group.auroc is not None
    ]
    if len(served) < 2:
        return None
    ordered = sorted(served, key=lambda one: (one.auroc.value, one.site))
    return ordered[0], ordered[-1]


def mends(record: RunRecord, main: str) -> list[Mend]:
    """Every other model, the one that helps the worst-served hospital most first."""
    ends = extremes(record, main)
    if ends is None:
        return []
    worst, best = ends
    found = []
    for series in select.all_series(record):
        gap = words.site_gap(record, worst.site, series, main) if series != main else None
        if gap is not None:
            found.append(Mend(series, gap, words.site_gap(record, best.site, series, main)))
    return sorted(found, key=lambda mend: -mend.worst[0].value)


def table(record: RunRecord, main: str) -> Table | None:
    """One row a model; None where there is nothing to compare."""
    ends, rows = extremes(record, main), mends(record, main)
    if ends is None or not rows:
        return None
    worst, best = ends
    shown = tuple(
        (
            Cell(select.look(mend.series).label),
            Cell(_said(mend.worst), "good" if mend.helps else "weak" if mend.worst[0].high < 0 else ""),
            Cell(_said(mend.best), "weak" if mend.costs else "")
            if mend.best
            else Cell("not released", "muted"),
        )
        for mend in rows
    )
    return Table(
        f"Instead of {_inside(main)}: change of AUROC",
        (
            "Model",
            f"{worst.site}, served worst ({estimate(worst.auroc)})",
            f"{best.site}, served best ({estimate(best.auroc)})",
        ),
        shown,
        csv=csv_uri(
            ("model", "worst_site", "change", "low", "high", "best_site", "change", "low", "high"),
            [
                (
                    m.series,
                    worst.site,
                    *_triple(m.worst[0]),
                    best.site,
                    *_triple(m.best[0] if m.best else None),
                )
                for m in rows
            ],
        ),
        note="Green: more than chance for the better; red: for the worse. The worst of several is partly so by chance, "
        "and then looks mended by anything: trust intervals, not points. Pooling is possible only in a simulation.",
    )


def remedy(record: RunRecord, main: str) -> tuple[str, str]:
    """What mends it, and what that costs the best-served hospital: one sentence each."""
    ends, rows = extremes(record, main), mends(record, main)
    if ends is None:
        return "Fewer than two hospitals released an AUROC, so nothing can be said.", "Nothing can be said."
    worst, best = ends
    tried = ", ".join(_inside(m.series) for m in rows) or "nothing"
    # What costs nobody comes first; then what helps most.
    helpful = sorted((m for m in rows if m.helps), key=lambda m: m.costs)
    if not helpful:
        nothing = (
            f"Nothing in this run helps {worst.site} more than chance explains; {_inside(main)} has its lowest AUROC there, "
            f"{estimate(worst.auroc)}. Tried: {tried}."
        )
        return nothing, "There is no remedy whose price could be named."
    good, *others = helpful
    mended = (
        f"{_start(good.series)}: {worst.site}, served worst with {estimate(worst.auroc)}, gains "
        f"{_said(good.worst)} AUROC."
    )
    if others:
        also = "; ".join(f"{_start(m.series)} ({_said(m.worst)})" for m in others)
        mended += f" It also gains by: {also}."
    if good.best is None:
        return mended, f"{best.site}, served best, released no figure for it."
    verb = "loses" if good.costs else "changes by"
    beyond = "" if good.costs else ", no loss that this run can tell from chance"
    return mended, f"{best.site}, served best with {estimate(best.auroc)}, {verb} {_said(good.best)}{beyond}."


def _start(series: str) -> str:
    label = select.look(series).label
    return label + (" (only in a simulation)" if series == "pooled" else "")


def _inside(series: str) -> str:
    label = select.look(series).label
    return "the federated model" if series == "federated" else f"“{label}”"


def _said(gap: tuple[Estimate, bool]) -> str:
    return difference(gap[0]) + ("" if gap[1] else " unpaired")


def _triple(value: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (value.value, value.low, value.high) if value is not None else (None, None, None)
