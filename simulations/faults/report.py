"""The tables of faults, measured now or before: what was hurt, who hung, who answered wrongly (`consilium-sim faults`)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from common.errors import ConsiliumError, InputError
from simulations.faults import hung, matrix, wrong
from simulations.faults.cases import ALL, CUT, FAULTS, HALF, LEFT, SECURED, SLOW, STOOD, TRAINING, Fault
from simulations.faults.kept import HUNG, Kept, read_kept, write_kept
from simulations.faults.matrix import Happened
from simulations.faults.wrong import CASES

SHORT: Final = (
    Fault("server", "serverapp", HALF),
    Fault(SLOW, "node", TRAINING),
)
"""One fault of each side: what an ordinary test has time for."""
_SHORT_WRONG: Final = tuple(CASES)[::6]
_BATCH: Final = 12
"""Faults of one federation, each in a round of its own."""
_MARK: Final = "<!-- measured: {} -->"
_TABLES: Final = {"killed": FAULTS, "secured": SECURED, "cut": CUT, "away": LEFT, "stuck": STOOD}
Told = Callable[[str], None]


def names(wanted: Sequence[str], *, short: bool = False) -> list[str]:
    """The cases that these words choose; all of them without a word.

    Args:
        wanted: names, or patterns such as `tls-*`.
        short: a few only, where no word is given.

    Raises:
        InputError: a word chooses none.
    """
    there = [*CASES, HUNG, *(fault.name for fault in ALL)]
    if not wanted:
        return [*_SHORT_WRONG, *(fault.name for fault in SHORT)] if short else there
    chosen = []
    for word in wanted:
        found = [name for name in there if fnmatch(name, word)]
        if not found:
            raise InputError(word, "no case is called so", f"Choose among: {', '.join(there)}")
        chosen += [name for name in found if name not in chosen]
    return chosen


def measure(told: Told, chosen: Sequence[str], path: Path | None = None) -> Kept:
    """Make these cases happen, but for those that the file at `path` holds already; each is put there at once.

    Raises:
        InputError: the file is not one of ours.
    """
    kept = read_kept(path)
    left = [name for name in chosen if not kept.has(name)]
    by_name = {fault.name: fault for fault in ALL}
    with tempfile.TemporaryDirectory(prefix="consilium-faults-") as folder:
        for number, name in enumerate(name for name in left if name in (*CASES, HUNG)):
            _alone(Path(folder) / f"alone-{number}", name, kept, told)
            write_kept(kept, path)
        for number, faults in enumerate(_batches([by_name[name] for name in left if name in by_name])):
            _carried_out(Path(folder) / f"faults-{number}", faults, kept, path, told)
    return kept


def _alone(folder: Path, name: str, kept: Kept, told: Told) -> None:
    """A case that has a federation of its own."""
    kept.failed.pop(name, None)
    try:
        if name == HUNG:
            kept.hung = hung.run(folder)
            told(f"a hospital that hangs: its process ended after {kept.hung.freed_s:.1f} s")
        else:
            kept.wrong[name] = wrong.run(folder, name)
            told(f"{name}: {kept.wrong[name].code or 'let in once'}")
    except ConsiliumError as error:
        kept.failed[name] = str(error)
        told(f"{name}: {error}")


def _batches(faults: Sequence[Fault]) -> Iterator[list[Fault]]:
    for secured in (False, True):
        of = [fault for fault in faults if fault.secured is secured]
        yield from (of[begin : begin + _BATCH] for begin in range(0, len(of), _BATCH))


def _carried_out(folder: Path, faults: list[Fault], kept: Kept, path: Path | None, told: Told) -> None:
    """One batch; where a fault is not got over, what comes after it is tried in a federation of its own."""

    def row(happened: Happened) -> None:
        kept.happened[happened.fault.name] = happened
        write_kept(kept, path)
        figures = f"{happened.back_s:.1f} s, and {happened.complete_s:.1f} s"
        told(f"{happened.fault.name}: {happened.failed or figures}{'' if happened.well else ' NOT WELL'}")

    failed = ""
    try:
        result = matrix.run(folder, faults, row)
        if not result.whole and not result.rows[-1].failed:
            failed = "the run did not end as an undisturbed one"
    except ConsiliumError as error:
        failed = str(error)
    done = [fault for fault in faults if fault.name in kept.happened]
    if failed:
        for fault in done or faults[:1]:
            row(replace(kept.happened.get(fault.name, Happened(fault, 0, 0.0, 0.0)), failed=failed))
    left = faults[max(len(done), 1) :]
    if left:
        _carried_out(folder.with_name(f"{folder.name}-again"), left, kept, path, told)


def tables(kept: Kept) -> dict[str, str]:
    """All that was measured, as Markdown, by the name of its place in a document."""
    found = {
        name: matrix.table(rows) + _missing(kept, of)
        for name, of in _TABLES.items()
        if (rows := kept.rows(of))
    }
    if kept.hung is not None:
        found[HUNG] = hung.table(kept.hung)
    if kept.wrong:
        found["wrong"] = wrong.table(kept.outcomes())
    return found


def _missing(kept: Kept, faults: Sequence[Fault]) -> str:
    """A table that is not whole says so."""
    left = [f"`{fault.name}`" for fault in faults if fault.name not in kept.happened]
    return f"\n\nNot measured: {', '.join(left)}." if left else ""


def put(path: Path, kept: Kept) -> None:
    """Replace the tables in a document that were measured, each between its two marks.

    Raises:
        InputError: when the file has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    for name, table in tables(kept).items():
        begin, end = _MARK.format(name), _MARK.format(f"end of {name}")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise InputError(
                path.name, f"it has no place for the table `{name}`", f"Put {begin} and {end} into it"
            )
        text = pattern.sub(f"{begin}\n{table}\n{end}".replace("\\", r"\\"), text)
    path.write_text(text, encoding="utf-8")
