"""The tables of docs/scanners.md, from the stages' own docstrings: `python -m simulations.scanners.told docs/scanners.md`.

A test holds the document to the code, so that a formula is written once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from simulations.scanners import ct, mr, xray
from simulations.scanners.stages import Stage

CHAINS: Final[dict[str, Sequence[Stage[Any]]]] = {"xray": xray.STAGES, "mr": mr.STAGES, "ct": ct.STAGES}
MARK: Final = "<!-- stages: {} -->"


def table(stages: Sequence[Stage[Any]]) -> str:
    """One row a stage, as Markdown."""
    lines = ["| stage | what it does | formula | unit | source |", "|---|---|---|---|---|"]
    for stage in stages:
        told = stage.told()
        cells = (f"`{stage.name}`", told.title.rstrip("."), told.formula, told.unit, told.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").rstrip(".") for cell in cells) + " |")
    return "\n".join(lines)


def put(text: str) -> str:
    """The document with every table between its marks made anew."""
    for name, stages in CHAINS.items():
        begin, end = MARK.format(name), MARK.format(f"end {name}")
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n{table(stages)}\n{end}{after}"
    return text


def main(path: Path) -> None:
    """Rewrite the tables of this document in place."""
    path.write_text(put(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
