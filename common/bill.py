"""The command `sbom`, the same on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli import say


def sbom(out: Annotated[Path, typer.Option(help="The file to write.")] = Path("sbom.json")) -> None:
    """Write what is installed here as a software bill of materials: CycloneDX, JSON."""
    from common.checkpoints import write_whole  # noqa: PLC0415 - a command line starts before it knows what it needs
    from common.sbom import dump_sbom  # noqa: PLC0415

    write_whole(out, dump_sbom().encode())
    say(f"Wrote {out}")
