"""What is typed to measure a federation of real processes: `consilium-sim bench server-memory | round-overhead | scale`, and what
travels: `consilium-sim bench wire`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from common.cli import JsonFlag, say, show

_SHARE_LIMIT: Final = 0.3
"""What an update at 8 bits may weigh of one at 32."""


def server_memory(
    sites: Annotated[list[int] | None, typer.Option(min=1, help="Hospitals; repeatable.")] = None,
    values: Annotated[int, typer.Option(min=1, help="Numbers of the model.")] = 10_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each study.")] = 2,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """Peak memory of ServerApp and SuperLink with real processes; ends with status 1 above the limit."""
    from simulations.benchmarks.deployed import MODELS_LIMIT, memory_table, study  # noqa: PLC0415 - what is measured is heavy

    found = [study(count, values, rounds) for count in sites or [1, 3, 6]]
    show(found, as_json, lambda: memory_table(found))
    if any(one.models > MODELS_LIMIT for one in found):
        raise typer.Exit(1)


def server_alone(
    sites: Annotated[list[int] | None, typer.Option(min=1, help="Hospitals; repeatable.")] = None,
    values: Annotated[int, typer.Option(min=1, help="Numbers of the model.")] = 10_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each study.")] = 1,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """Peak memory of a server beside a stand-in for Flower's SuperLink on disk; ends with status 1 above the limit."""
    from simulations.benchmarks.alone import alone, alone_table  # noqa: PLC0415 - what is measured is heavy
    from simulations.benchmarks.deployed import MODELS_LIMIT  # noqa: PLC0415 - as above

    found = [alone(count, values, rounds) for count in sites or [2, 4, 8]]
    show(found, as_json, lambda: alone_table(found))
    if any(one.models > MODELS_LIMIT for one in found):
        raise typer.Exit(1)


def round_overhead(
    sites: Annotated[int, typer.Option(min=1, help="Hospitals.")] = 3,
    values: Annotated[int, typer.Option(min=1, help="Numbers of the model.")] = 7_500_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of training.")] = 5,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """Seconds of a round beyond computing with real processes; ends with status 1 above the limit."""
    from simulations.benchmarks.deployed import OVERHEAD_LIMIT_S, overhead_table, study  # noqa: PLC0415 - what is measured is heavy

    found = study(sites, values, rounds)
    show(found, as_json, lambda: overhead_table(found))
    if found.overhead_s > OVERHEAD_LIMIT_S:
        raise typer.Exit(1)


def scale(
    sites: Annotated[int, typer.Option(min=1, help="Hospitals.")] = 50,
    values: Annotated[int, typer.Option(min=1, help="Numbers of the model.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of training.")] = 5,
    write: Annotated[
        Path | None, typer.Option(help="Put the figures into this page, between their marks.")
    ] = None,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """Many hospitals with a small model, or a few with a large one, all on this machine; stops before memory runs short."""
    from simulations.benchmarks.scale import put, scale_table, scaled  # noqa: PLC0415 - what is measured is heavy

    found = scaled(sites, values, rounds, lambda word: None if as_json else say(word))
    show(found, as_json, lambda: scale_table(found))
    if write is not None:
        put(found, write)


def wire(
    values: Annotated[int, typer.Option(min=1, help="Numbers of the model.")] = 1_000_000,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """Bytes of an update at 32, 16 and 8 bits; ends with status 1 where 8 bits are more than 0.3 of it."""
    from simulations.benchmarks.bits import bits_table, weighed  # noqa: PLC0415 - numpy

    found = weighed(values)
    show(found, as_json, lambda: bits_table(found))
    if found[-1].share > _SHARE_LIMIT:
        raise typer.Exit(1)


DEPLOYED: Final = (
    ("wire", wire, "--values 1000000"),
    ("server-memory", server_memory, "--sites 3 --values 10000000"),
    ("server-alone", server_alone, "--sites 2 --sites 8 --values 10000000"),
    ("round-overhead", round_overhead, "--sites 3"),
    ("scale", scale, "--sites 50 --values 10000 --rounds 5"),
)
"""Name, function, and the words of an example."""
