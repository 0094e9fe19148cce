"""What is typed to time simulations beside others: `consilium-sim bench simulation`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from common.cli import JsonFlag, say, show

if TYPE_CHECKING:
    from simulations.benchmarks.race_record import Race

BEGIN: Final = "<!-- measured by `consilium-sim bench simulation` -->"
END: Final = "<!-- end of what was measured -->"


def simulation(
    cache: Annotated[
        Path,
        typer.Option(envvar="CONSILIUM_CACHE", help="Keeps prepared hospitals and the peers' environments."),
    ] = Path("~/.cache/consilium/bench"),
    *,
    turns: Annotated[int, typer.Option(min=1, help="Of all contenders, one after another.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help="Beginning of a contender's name; repeatable. All by default.")
    ] = None,
    sites: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Hospitals at which start-up and memory are measured; repeatable."),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Put the tables into this file, between their marks.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """One task by a bare loop, this project, pfl-research, fluke and NVFlare; ends with status 1 above a limit."""
    from simulations.benchmarks.simulation import MEMORY_SITES, race, race_table  # noqa: PLC0415 - numbers

    found = race(cache.expanduser().resolve(), turns, only or (), sites or MEMORY_SITES, say)
    if write is not None:
        put(write, found)
    show(found, as_json, lambda: race_table(found))
    if not found.passed:
        raise typer.Exit(1)


def put(path: Path, found: Race) -> None:
    """Put what was measured between the marks of a document; at its end where it has none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    body = "\n".join((BEGIN, "", *as_markdown(found), "", END))
    path.write_text(f"{before}{body}{after or chr(10)}", encoding="utf-8")


def as_markdown(found: Race) -> list[str]:
    """Both tables, line by line."""
    bare = found.contenders[0]
    task = f"{found.sites} hospitals, {found.chosen} a round, {found.rounds} rounds, {found.cores} cores"
    lines = [
        f"{task}, {len(bare.turns)} turns.",
        "",
        "| contender | start-up, s | median round, s | best, s | ÷ bare loop | processor a round, s | ÷ bare loop | MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found.contenders:
        if one.absent or not one.turns:
            lines.append(f"| {one.label} | absent: {one.absent.replace('|', '/')} | | | | | | |")
            continue
        cpu = (
            f"{one.cpu_s:.3f} | {one.cpu_s / bare.cpu_s:.2f} | {one.memory_mib:.0f}" if one.cpu_s else " | | "
        )
        lines.append(
            f"| {one.label} | {one.startup_s:.1f} | {one.round_s:.3f} | {one.best_s:.3f} | {found.ratio(one):.2f} | {cpu} |"
        )
    if found.growing:
        lines += [
            "",
            "| hospitals | start-up, s | median round, s | all processes, MiB |",
            "|---:|---:|---:|---:|",
        ]
    for count, of in found.growing:
        middle = sorted(of.rounds_s)[len(of.rounds_s) // 2]
        lines.append(f"| {count:,} | {of.startup_s:.1f} | {middle:.3f} | {of.memory_mib:.0f} |")
    return [*lines, "", verdict(found)]


def verdict(found: Race) -> str:
    """Each limit with what was found, in a line."""
    from simulations.benchmarks.race_record import MEMORY_LIMIT, ROUND_LIMIT, STARTUP_LIMIT_S  # noqa: PLC0415 - as above

    ours = found.ours
    parts = [
        f"a round takes {found.ratio(ours):.2f} of the bare loop's (at most {ROUND_LIMIT})",
        f"start-up {ours.startup_s:.1f} s (at most {STARTUP_LIMIT_S:g})",
        f"memory at the most hospitals {found.growth:.2f} of that at the fewest (at most {MEMORY_LIMIT})",
        f"ahead of us: {', '.join(found.ahead) or 'nobody'}",
    ]
    return f"{'Every limit is kept' if found.passed else 'NOT every limit is kept'}: {'; '.join(parts)}."
