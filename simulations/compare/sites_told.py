"""Hospital by hospital, in tables of plain words: for the page and for a Markdown file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.checkpoints import write_whole
from common.errors import InputError
from common.messages import Estimate
from common.pages.page import NOTHING, difference, signed
from simulations.compare.cells import Compared
from simulations.compare.over import Judged, at, called, changes, gaps_between, told, trained
from simulations.compare.ways import ALONE, BASE, WAYS

END: Final = "<!-- end of measured -->"
ALPHA: Final = 0.05
_SOURCES: Final = ("pixels", "features", "score")


@dataclass(frozen=True)
class Words:
    """A table: the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def three(value: Estimate | None) -> str:
    """`0.912 (0.870-0.941)`: differences between methods are in the third place; of one seed the figure alone."""
    if value is None:
        return NOTHING
    if not bounded(value):
        return f"{value.value:.3f}"
    return f"{value.value:.3f} ({value.low:.3f}\u2013{value.high:.3f})"


def change(value: Estimate | None) -> str:
    """`+0.012 (-0.010 to +0.034)`; of one seed the figure alone."""
    return difference(value) if value is None or bounded(value) else signed(value.value)


def bounded(value: Estimate) -> bool:
    """Whether there is an interval: from one seed nothing follows."""
    return value.low > 0 or value.high < 1


def hospitals(record: Compared) -> tuple[Words, ...]:
    """Every table that there is something to say in."""
    made = (
        _areas(record),
        _changes(record, ALONE),
        _changes(record, BASE),
        _gaps(record),
        _elsewhere(record),
    )
    return tuple(one for one in (*made, _readable(record)) if one is not None and one.rows)


def put(path: Path, record: Compared) -> None:
    """Replace what stands between `<!-- measured: <name of the scenario> -->` and the next end mark of a page.

    Raises:
        InputError: the page has no such marks.
    """
    mark = f"<!-- measured: {record.name} -->"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(path.name, "it cannot be read as text", "Name a Markdown file") from None
    before, first, rest = text.partition(mark)
    _, last, after = rest.partition(END)
    if not first or not last:
        raise InputError(path.name, "it has no place for these tables", f"Put the lines {mark} and {END} in")
    write_whole(path, f"{before}{first}\n{markdown(record)}\n{last}{after}".encode())


def markdown(record: Compared) -> str:
    """Every table of the comparison, what was refused, and what is still to be run."""
    parts = [_lines(one) for one in (_whole(record), *hospitals(record))]
    refused = [f"- `{row.way}` is refused: {row.refused}" for row in record.rows if row.refused]
    few = [row for row in record.rows if 0 < row.seeds < len(record.seeds)]
    fewer = [f"- `{row.way}` was run with {row.seeds} of {len(record.seeds)} seeds" for row in few]
    return "\n\n".join([*parts, *(["\n".join(refused + fewer)] if refused or fewer else [])]) + "\n"


def _lines(table: Words) -> str:
    rows = [table.header, tuple("---" for _ in table.header), *table.rows]
    note = f"\n\n{table.note}" if table.note else ""
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + note


def _whole(record: Compared) -> Words:
    rows = tuple(
        (
            f"`{row.way}`",
            three(row.mean),
            three(row.worst),
            change(row.mean_change),
            change(row.worst_change),
            NOTHING if row.calibration is None else f"{row.calibration.value:.3f}",
            f"{row.bytes / 1e6:.1f}" if row.rounds else NOTHING,
            f"{row.seconds:.0f}",
        )
        for row in record.rows
        if row.mean is not None
    )
    header = ("method", "mean AUROC", "worst hospital", "mean, change", "worst, change", "ECE", "MB", "CPU s")
    said = f"Changes are from `{BASE}`, paired by seed; the worst hospital is chosen anew in each seed."
    return Words(f"All hospitals that train, {_over(record)}", header, rows, said)


def _over(record: Compared) -> str:
    count = len(record.seeds)
    if count == 1:
        return "one seed"
    return f"{count} seeds" if record.virtual else f"{count} splits of the patients"


def _areas(record: Compared) -> Words:
    names = [name for name in record.hospitals if any(at(record, w, name) for w in _ways(record))]
    rows = tuple((_name(way), *(three(at(record, way, name)) for name in names)) for way in _ways(record))
    return Words(f"AUROC at each hospital, {_over(record)}", ("method", *names), rows)


def _changes(record: Compared, base: str) -> Words | None:
    """From training alone, and from FedAvg: at each hospital."""
    found, names = changes(record, base), trained(record)
    ways = [way for way in _ways(record) if any((way, name) in found for name in names)]
    rows = tuple((_name(way), *(_judged(found.get((way, name))) for name in names)) for way in ways)
    said = "each hospital alone" if base == ALONE else f"`{base}`"
    note = f"{_bold(len(found))} Paired by seed; p by the corrected t."
    return Words(f"Change of AUROC from {said}", ("method", *names), rows, note) if rows else None


def _gaps(record: Compared) -> Words | None:
    found = gaps_between(record)
    pairs = sorted({pair for _, pair in found})
    ways = [way for way in _ways(record) if any((way, pair) in found for pair in pairs)]
    rows = tuple((_name(way), *(_judged(found.get((way, pair))) for pair in pairs)) for way in ways)
    header = ("method", *(f"{one} \u2212 {other}" for one, other in pairs))
    note = (
        f"{_bold(len(found))} Of each seed the permutation test of two hospitals whose patients of equal truth change places; "
        "of seeds twice the median p-value."
    )
    return Words("Gaps between two hospitals", header, rows, note) if rows else None


def _elsewhere(record: Compared) -> Words | None:
    """Where AUROC has no meaning, because all are ill: whom the shared threshold calls, there and at home."""
    ways = [way for way in _ways(record) if any(called(record, way, name)[0] for name in record.external)]
    rows = []
    for way in ways:
        outside = [_share(called(record, way, name)[0]) for name in record.external]
        home = [called(record, way, name) for name in trained(record)]
        rows.append((_name(way), *outside, *(f"{_share(hit)} / {_share(right)}" for hit, right in home)))
    header = (
        "method",
        *(f"{name} (external): called ill" for name in record.external),
        *(f"{name}: sensitivity / specificity" for name in trained(record)),
    )
    note = "At the one threshold of all hospitals, means over seeds. A share called ill is worth what it costs the healthy."
    return Words("The external hospital", header, tuple(rows), note) if rows else None


def _readable(record: Compared) -> Words | None:
    ways = [way for way in _ways(record) if told(record, way, "pixels") is not None]
    rows = tuple(
        (
            _name(way),
            *(_figure(told(record, way, source)) for source in _SOURCES),
            *(
                change(of)
                for row in record.rows
                if row.way == way
                for of in (row.mean_change, row.worst_change)
            ),
        )
        for way in ways
    )
    raw = "" if record.raw is None else f" From the files as they are, at 32 pixels: {record.raw:.2f}."
    note = (
        f"Balanced accuracy of a logistic regression, mean over seeds; chance is {1 / max(1, len(trained(record))):.2f}.{raw} "
        "Described, not judged: to read is not to use."
    )
    header = (
        "method",
        "from the input",
        "from features",
        "from the score",
        "mean AUROC, change",
        "worst, change",
    )
    return Words("How well the hospital is told from one image", header, rows, note) if rows else None


def _ways(record: Compared) -> list[str]:
    return [row.way for row in record.rows if row.mean is not None]


def _name(way: str) -> str:
    return f"`{way}`" if way in WAYS else f"`{way}` (`--more`)"


def _judged(found: Judged | None) -> str:
    if found is None:
        return NOTHING
    words = change(found.value)
    return f"**{words}**" if found.holm <= ALPHA else words


def _bold(count: int) -> str:
    return f"Bold: more than chance at 5% after Holm over all {count}."


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"
