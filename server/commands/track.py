"""Telling MLflow and TensorBoard, where server.toml names them."""

from __future__ import annotations

from typing import Annotated

import typer

from common.cli import JsonFlag, grid, show
from common.errors import SettingsError
from common.logs import configure
from server.commands.options import HERE, Folder


def track(
    folder: Folder = HERE,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until stopped, as `start` does.")] = False,
    as_json: JsonFlag = False,
) -> None:
    r"""Tell the trackers of `\[tracking]` in server.toml of every study; only what the run's record holds."""
    from server.federation_folder import Consortium
    from server.tracking.follow import follow as go_on_telling
    from server.tracking.follow import tell_all, trackers

    consortium = Consortium.open(folder)
    found = trackers(consortium)
    if not found:
        raise SettingsError(
            "tracking",
            "no tracker is configured",
            "Set tracking.tensorboard or tracking.mlflow in server.toml",
        )
    if follow:
        configure("INFO")
        go_on_telling(consortium)
    rows = [(name, tell_all(consortium.folder, one)) for name, one in found.items()]
    result = [dict(zip(("tracker", "studies"), row, strict=True)) for row in rows]
    show(result, as_json, lambda: grid("Told", ("tracker", "studies"), rows))
