"""What a report of very many hospitals leaves out line by line: who has nothing to show, and who is neither served worst nor best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from common.pages.page import NOTHING, Cell
from server.records import RunRecord
from server.reports import select

FEW: Final = 40
"""Hospitals up to which each has a line of its own, whatever it shows."""
WORST: Final = 30
"""Of more with a figure, so many that are served worst have a line each."""
BEST: Final = 10
"""And so many that are served best."""
Row = tuple[Cell, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Crowd:
    """Which hospitals of a record have a line and a picture each."""

    names: frozenset[str] | None = None
    """None: all of them."""
    others: int = 0
    words: str = ""
    """How they were chosen and where the others are; empty where all are shown."""

    def has(self, name: str) -> bool:
        """Whether this hospital is among them."""
        return self.names is None or name in self.names


EVERYBODY: Final = Crowd()


@select.once
def crowd(record: RunRecord) -> Crowd:
    """Everybody where few hospitals have an AUROC; else those that the report's model serves worst and best."""
    main = select.main_series(record)
    found = select.all_series(record).get(main or "", {})
    groups = {site: select.group_of(metrics) for site, metrics in found.items()}
    figures = {site: g.auroc.value for site, g in groups.items() if g is not None and g.auroc is not None}
    if main is None or len(figures) <= FEW:
        return EVERYBODY
    ordered = sorted(figures, key=lambda site: (figures[site], site))
    others = len(ordered) - WORST - BEST
    words = (
        f"Shown are the {WORST} hospitals that the model \u201c{select.look(main).label}\u201d serves worst by AUROC and the "
        f"{BEST} that it serves best; the {others:,} between them are in the download."
    )
    return Crowd(frozenset(ordered[:WORST] + ordered[-BEST:]), others, words)


def cut(rows: Sequence[Row], record: RunRecord) -> list[Row]:
    """Rows of a table, the first cell of each a hospital's name or a total's, without those that are not shown."""
    of = crowd(record)
    return [row for row in rows if row[0].style == "total" or of.has(row[0].text)]


def spoken(items: Sequence[T], says: Callable[[T], bool], few: int = FEW) -> list[T]:
    """All of a few; of many those that say something.

    Args:
        items: one for each hospital or group.
        says: whether one says something.
        few: how many are a few.
    """
    return [one for one in items if says(one)] if len(items) > few else list(items)


def gathered(rows: Sequence[Row], says: Callable[[Row], bool], words: str = "held back") -> tuple[Row, ...]:
    """Rows of a table, of which many that say nothing become one at its end.

    Args:
        rows: one for each hospital, all of one length; the first cell names it.
        says: whether a row says something.
        words: what the others say together.
    """
    kept = spoken(rows, says)
    gone = len(rows) - len(kept)
    if not gone:
        return tuple(kept)
    head = Cell(f"{gone:,} hospitals" if gone > 1 else "1 hospital", note=words)
    return (*kept, (head, *(Cell(NOTHING, "muted") for _ in rows[0][1:])))


def released(row: Row) -> bool:
    """Whether some cell behind the first holds a figure, not why there is none."""
    return any(cell.style != "muted" for cell in row[1:])
