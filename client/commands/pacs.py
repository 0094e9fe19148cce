"""What a hospital does with its archive."""

from __future__ import annotations

import typer

from client.commands.ask import echo, query
from client.commands.listen import listen
from client.commands.pull import pull, watch
from common.cli import Border, example

group = typer.Typer(
    cls=Border,
    help="Archives: receive from them, ask them, watch them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
group.command("listen", epilog=example("consilium-site pacs listen --once"))(listen)
group.command("echo", epilog=example("consilium-site pacs echo"))(echo)
group.command("query", epilog=example("consilium-site pacs query --modality CT --from 2024-01-01"))(query)
group.command("pull", epilog=example("consilium-site pacs pull --accessions labels.csv --labels labels.csv"))(
    pull
)
group.command("watch", epilog=example("consilium-site pacs watch --modality DX --labels labels.csv"))(watch)
