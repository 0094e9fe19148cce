"""What this hospital's machine costs and takes, measured here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from common.cli import JsonFlag, example, grid, progress, show

app = typer.Typer(no_args_is_help=True, help="Time what a round will cost on this machine.")


@app.command("dp", epilog=example("consilium-site bench dp --network resnet18"))
def dp(
    network: Annotated[
        list[str] | None, typer.Option(help="Only this network; may be repeated. Three when not given.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Interleaved repetitions.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one step.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Time and memory of one private step against the same step without privacy, and against Opacus."""
    import torch

    from client.benchmarks.dp import CASES, measure

    torch.set_num_threads(threads)
    cases = [case for case in CASES if not network or case.network in network]
    with progress("Measuring") as report:
        rows = measure(cases, repeats=repeats, progress=report)

    def table() -> Table:
        cells = (
            (
                row.network,
                row.engine,
                _times(row.wall),
                _times(row.cpu),
                _ms(row.milliseconds),
                _times(row.memory),
            )
            for row in rows
        )
        return grid(
            "One private step as a multiple of the plain one, batch 32 at 64 x 64",
            ("network", "engine", "time", "processor", "ms", "memory"),
            cells,
        )

    show(rows, as_json, table)


def _times(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.2f}"


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
