"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SiteFolder = Annotated[
    Path,
    typer.Option("--site", "-s", envvar="CONSILIUM_SITE", help="The site's folder, which holds site.toml."),
]
HERE = Path()
"""Where a command looks for the site when nobody says otherwise: the current folder."""
