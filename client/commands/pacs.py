"""What a hospital does with its archive."""

from __future__ import annotations

import typer

from client.commands.listen import listen
from common.cli import Border, example

group = typer.Typer(
    cls=Border,
    help="Archives: receive from them, ask them, watch them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
group.command("listen", epilog=example("consilium-site pacs listen --once"))(listen)
