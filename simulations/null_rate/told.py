"""The tables of a sweep: false alarms by case, power by size and gap; and whether it is as promised."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
from rich.table import Table
from scipy.stats import binom, chisquare

from common.checkpoints import write_whole
from common.cli import grid
from common.errors import InputError
from common.statistics.catalogue import LABELS
from simulations.null_rate.cohorts import EXACT, NULLS
from simulations.null_rate.sweep import GAPS, SIZES, Result
from simulations.null_rate.trials import ONE, Tally

LOW: Final = 0.045
HIGH: Final = 0.055
MARKS: Final = ("<!-- measured: null-rate -->", "<!-- end of measured -->")


def promised(result: Result) -> bool:
    """Whether false alarms are as often as stated.

    Comparisons by themselves in 4.5 to 5.5% over all cases in which permutation is exact, any alarm after Holm in at most
    5.5% of their simulations, and in no single one of them more often than its number of simulations explains (one in a thousand).
    """
    whole = pooled(result)
    alarms, count = whole.rate()
    if not count or not LOW <= alarms / count <= HIGH or whole.alarms / whole.simulations > HIGH:
        return False
    single = [*(t for name, t in result.nulls.items() if name in EXACT), *result.costly.values()]
    return all(binom.sf(t.alarms - 1, t.simulations, 0.05) > 0.001 for t in single)


def pooled(result: Result) -> Tally:
    """All null cases together in which permutation is exact."""
    whole = Tally()
    for name, tally in result.nulls.items():
        if name in EXACT:
            whole.add(tally)
    return whole


def uniform(tally: Tally) -> float:
    """Chi-square p-value of the bins of one gap a simulation against equal shares; not a number where there is none."""
    counts = tally.comparisons.get(ONE)
    return float(chisquare(counts).pvalue) if counts and sum(counts) else math.nan


def null_table(result: Result) -> Table:
    """One row a null case."""
    return grid(_title(result), _HEADS, _rows(result))


def power_table(result: Result) -> Table:
    """One row a size."""
    heads = ("patients", *(f"gap {gap:.2f}" for gap in GAPS))
    return grid(
        "Weak manufacturer (30% of the patients) found after Holm, AUROC 0.85 elsewhere",
        heads,
        _power(result),
    )


def costly_table(result: Result) -> Table:
    """One row a figure of those that the large run leaves out."""
    return grid("False alarms of figures that are dear to permute", _COSTLY_HEADS, _costly(result))


def markdown(result: Result) -> str:
    """Every table for a page."""
    heads = ("patients", *(f"gap {gap:.2f}" for gap in GAPS))
    parts = [_title(result), "", *_lines(_HEADS, _rows(result)), ""]
    if result.power:
        runs = next(iter(result.power.values())).simulations
        parts += [f"Power over {runs:,} simulations each:", "", *_lines(heads, _power(result)), ""]
    if result.costly:
        parts += ["Figures that are dear to permute:", "", *_lines(_COSTLY_HEADS, _costly(result)), ""]
    return "\n".join(parts)


def put(path: Path, result: Result) -> None:
    """Replace what stands between the marks of a page.

    Raises:
        InputError: the page has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not first or not last:
        raise InputError(
            path.name, "it has no place for these tables", f"Put the lines {MARKS[0]} and {MARKS[1]} in"
        )
    write_whole(path, f"{before}{first}\n{markdown(result)}{last}{after}".encode())


_HEADS: Final = (
    "case",
    "simulations",
    "comparisons",
    "p at most 0.05",
    "AUROC alone",
    "any after Holm",
    "uniform",
)


_COSTLY_HEADS: Final = ("figure", "simulations", "comparisons", "p at most 0.05", "any after Holm")


def _costly(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            LABELS[name],
            f"{tally.simulations:,}",
            f"{tally.rate()[1]:,}",
            _share(*tally.rate()),
            _share(tally.alarms, tally.simulations),
        )
        for name, tally in result.costly.items()
    ]


def _title(result: Result) -> str:
    whole = pooled(result)
    return f"False alarms at a nominal 5%, {whole.simulations:,} simulations, seed {result.seed}"


def _rows(result: Result) -> list[tuple[str, ...]]:
    words = {cohort.name: f"{cohort.name}: {cohort.words}" for cohort in NULLS}
    listed = [(words[name], result.nulls[name], name in EXACT) for name in words if name in result.nulls]
    exact = [_row(name, tally) for name, tally, sure in listed if sure]
    others = [_row(f"{name} (not exchangeable)", tally) for name, tally, sure in listed if not sure]
    return [*exact, _row("all of these", pooled(result)), *others]


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    own, count = tally.rate()
    first, of = tally.rate(["auroc"])
    chance = uniform(tally)
    return (
        name,
        f"{tally.simulations:,}",
        f"{count:,}",
        _share(own, count),
        _share(first, of),
        _share(tally.alarms, tally.simulations),
        f"{chance:.2f}" if np.isfinite(chance) else "–",
    )


def _power(result: Result) -> list[tuple[str, ...]]:
    rows = []
    for size in SIZES:
        found = [result.power.get(f"{size}/{gap:g}") for gap in GAPS]
        rows.append((f"{size:,}", *(_share(t.named, t.simulations) if t else "–" for t in found)))
    return rows


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "–"


def _lines(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
