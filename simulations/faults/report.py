"""Both tables of faults, measured now: what was killed, and who answered wrongly (`consilium-sim faults`)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import InputError
from simulations.faults import matrix, wrong
from simulations.faults.matrix import FAULTS, SLOW, Fault, Happened, Result
from simulations.faults.wrong import CASES, Outcome

SHORT: Final = (
    Fault("server", "serverapp", "half"),
    Fault(SLOW, "node", "training"),
)
"""One fault of each side: what an ordinary test has time for."""
_MARK: Final = "<!-- measured: {} -->"


@dataclass(frozen=True)
class Measured:
    """What `consilium-sim faults` found."""

    killed: Result
    wrong: tuple[Outcome, ...]

    @property
    def well(self) -> bool:
        """Whether the federation came through everything."""
        aside = all(row.code == CASES[row.case].code and row.clean and row.noted for row in self.wrong)
        return aside and self.killed.same_bits and self.killed.everybody and not self.killed.twice


def measure(told: Callable[[str], None], *, short: bool = False) -> Measured:
    """Make all faults happen, or a few of them; takes about ten minutes, or two.

    Raises:
        ConsiliumError: when a federation did not go on.
    """
    chosen = list(CASES)[::6] if short else list(CASES)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="consilium-faults-") as folder:
        for number, name in enumerate(chosen):
            outcomes.append(wrong.run(Path(folder) / f"wrong-{number}", name))
            told(f"{name}: {outcomes[-1].code or 'let in once'}")

        def row(happened: Happened) -> None:
            told(f"{happened.fault.what} killed ({happened.fault.moment}): {happened.complete_s:.1f} s")

        killed = matrix.run(Path(folder) / "killed", SHORT if short else FAULTS, row)
    return Measured(killed, tuple(outcomes))


def both_tables(measured: Measured) -> str:
    """Both as Markdown."""
    return f"{matrix.table(measured.killed)}\n\n{wrong.table(measured.wrong)}"


def put(path: Path, measured: Measured) -> None:
    """Replace the tables in a document, each between its two marks.

    Raises:
        InputError: when the file has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    for name, table in (("killed", matrix.table(measured.killed)), ("wrong", wrong.table(measured.wrong))):
        begin, end = _MARK.format(name), _MARK.format(f"end of {name}")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise InputError(
                path.name, f"it has no place for the table `{name}`", f"Put {begin} and {end} into it"
            )
        text = pattern.sub(f"{begin}\n{table}\n{end}".replace("\\", r"\\"), text)
    path.write_text(text, encoding="utf-8")
