"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Folder that receives one sub-folder per run.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything but privacy noise.")]
