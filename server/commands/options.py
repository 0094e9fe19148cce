"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path,
    typer.Option(
        "--folder",
        "-f",
        envvar="CONSILIUM_FEDERATION",
        help="The consortium's folder, which holds server.toml.",
    ),
]
HERE = Path()
"""Where a command looks for the federation when nobody says otherwise: the current folder."""
SiteArgument = Annotated[str, typer.Argument(help="The hospital's short name, as in its site.toml.")]
