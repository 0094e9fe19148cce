"""The table of trials, on the terminal and in docs/probes.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from common.checkpoints import write_whole
from common.cli import grid
from common.errors import InputError
from simulations.probes.trials import Rate

MARKS: Final = ("<!-- measured: probe-rate -->", "<!-- end of measured -->")
_HEADS: Final = ("case", "probe", "alarms", "95% interval", "trials", "")
_TITLE: Final = "Alarms of the judged probes at a stated 5%"


def rate_table(rows: Sequence[Rate]) -> Table:
    """One row a case and probe."""
    return grid(_TITLE, _HEADS, _cells(rows))


def markdown(rows: Sequence[Rate]) -> str:
    """The same for a page."""
    lines = [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(rows)]
    return "\n".join([_TITLE, "", *lines, ""])


def put(path: Path, rows: Sequence[Rate]) -> None:
    """Replace what stands between the marks of a page.

    Raises:
        InputError: the page has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = (text.find(mark) for mark in MARKS)
    if not 0 <= begin < end:
        raise InputError(path.name, "it has no marks for the table", f"Put {MARKS[0]} and {MARKS[1]} into it")
    write_whole(path, (text[: begin + len(MARKS[0])] + "\n" + markdown(rows) + text[end:]).encode())


def _cells(rows: Sequence[Rate]) -> list[tuple[str, ...]]:
    return [
        (
            row.case,
            row.probe,
            f"{row.share.value:.1%}",
            f"{row.share.low:.1%} to {row.share.high:.1%}",
            f"{row.trials:,}",
            "planted" if row.planted else "",
        )
        for row in rows
    ]
