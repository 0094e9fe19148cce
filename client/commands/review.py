"""The page on which a person decides about the images that wait."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, say, show


def review(
    *,
    site: SiteFolder = HERE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0: any that is free.")] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open nothing.")
    ] = False,
    idle_minutes: Annotated[float, typer.Option(min=0.01, help="Stop when nobody came for so long.")] = 30.0,
    as_json: JsonFlag = False,
) -> None:
    """Look at the images that wait, in a browser on this machine: blank, accept or refuse each. Ctrl-C ends it.

    The address opens once. The page shows pixels as they came: a patient may be recognised, so stay beside it.
    """
    from client.review.serve import serve
    from client.site import load_site

    loaded = load_site(site)
    with tempfile.TemporaryDirectory(prefix="consilium-review-") as private:

        def ready(address: str) -> None:
            """Tell where; a browser is sent there by a private file, because its arguments are public."""
            show({"address": address}, as_json, lambda: f"Open once, on this machine: {address}")
            say("Ctrl-C ends it.")
            if not no_browser:
                way = Path(private) / "open.html"
                way.write_text(f'<meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
                webbrowser.open(way.as_uri())

        serve(loaded, port, idle_minutes * 60, ready)
    say("stopped")
