"""`consilium-site doctor`: whether this machine, this site and the way to the federation will do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, show

if TYPE_CHECKING:
    from client.doctor.check import Check

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_FAILED = 1
"""Exit status when a line failed; warnings alone end with 0."""


def doctor(
    site: SiteFolder = HERE,
    kit: Annotated[
        Path | None, typer.Option(help="An enrolment kit, before the hospital is enrolled.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at machine, keys, ledger, archives and the way to the federation; each line says what to do.

    Ends with status 1 when a line failed.
    """
    from client.doctor.check import Outcome
    from client.doctor.examine import Visit, examine, worst

    console = Console()
    checks: list[Check] = []
    for check in examine(Visit(site, kit)):
        checks.append(check)
        if not as_json:
            _print(console, check)
    if as_json:
        show({"outcome": worst(checks).value, "checks": checks}, as_json, lambda: "")
    if worst(checks) is Outcome.FAIL:
        raise typer.Exit(_FAILED)


def _print(console: Console, check: Check) -> None:
    word = check.outcome.value
    console.print(
        Text.assemble((f"{word:5}", _COLOURS[word]), f"{check.name:16} {check.seen}"), soft_wrap=True
    )
    if check.remedy:
        console.print(Text(f"{'':21} → {check.remedy}", style="dim"), soft_wrap=True)
