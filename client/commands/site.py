"""Making a site, looking at it, starting its service."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, grid, say, show
from common.logs import configure


@dataclass(frozen=True)
class Made:
    """What `init` made; the keys are named, never shown."""

    site: str
    settings: str
    keys: tuple[str, ...]
    next: str


@dataclass(frozen=True)
class Status:
    """What a site holds. Exact counts: this stays in the hospital."""

    site: str
    simulated: bool
    patients: int
    withdrawn: int
    images: int
    volumes: int
    labelled: int
    modalities: dict[str, int]
    manufacturers: dict[str, int]
    refused: dict[str, int]
    ingests: int
    policy: dict[str, Any]
    epsilon_spent: float | None
    """Of the patient who spent most, over all studies; None before any private training."""


def init(
    name: Annotated[str, typer.Argument(help="Short name in the federation: a-z, 0-9, hyphens.")],
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Make a new site: settings, keys, and an empty place for data."""
    from client.privacy.ledger import Ledger
    from client.site import init_site

    made = init_site(site, name)
    if not made.ledger.exists():
        Ledger.create(made.ledger).close()  # once, on purpose: a ledger that is missing later is refused
    result = Made(
        made.name,
        "site.toml",
        ("secrets/pseudonym.key", "secrets/spend.key"),
        "Back both keys up now: without them no patient can be recognised again.",
    )
    show(result, as_json, lambda: f"Site {made.name} is ready in {site}.\n{result.next}")


def status(site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """Show what this site holds and what it has spent."""
    result = read_status(site)
    show(result, as_json, lambda: grid(f"Site {result.site}", ("what", "value"), _lines(result)))


def serve(
    site: SiteFolder = HERE,
    socket: Annotated[
        Path | None, typer.Option(help="The Unix socket; service.sock in the site's state when not given.")
    ] = None,
) -> None:
    """Start the site service, which alone holds data, model and ledger, on its Unix socket."""
    from client.service import SiteService
    from client.site import load_site
    from client.socket import serve as serve_socket

    configure("INFO")  # nobody waits at the terminal: what happens is told as it happens
    loaded = load_site(site)
    path = socket or loaded.state / "service.sock"
    server = serve_socket(SiteService(loaded), path)
    say(f"The service of {loaded.name} listens on {path}. Stop it with Ctrl-C.")
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=None))
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=None).wait()
    say("The service has stopped.")


def read_status(folder: Path) -> Status:
    """Count what the site in `folder` holds.

    Raises:
        SettingsError: no site there. StorageError: its index cannot be read.
    """
    from client.index import Index
    from client.site import load_site

    site = load_site(folder)
    with Index(site.index) as index:
        images = index.images()
        everyone = index.patients(withdrawn=True)
        outcomes = index.outcomes()
        volumes, ingests = len(index.volumes()), len(index.ingests())
    present = [patient for patient in everyone if patient.withdrawn_at is None]
    return Status(
        site=site.name,
        simulated=site.simulated,
        patients=len(present),
        withdrawn=len(everyone) - len(present),
        images=len(images),
        volumes=volumes,
        labelled=sum(image.label is not None for image in images),
        modalities=dict(Counter(image.modality for image in images)),
        manufacturers=dict(Counter(image.manufacturer for image in images)),
        refused={code: count for code, count in outcomes.items() if code != "accepted"},
        ingests=ingests,
        policy={key: value for key, value in vars(site.policy).items() if not key.startswith("_")},
        epsilon_spent=_spent(site.ledger, site.policy.max_delta, simulated=site.simulated),
    )


def _spent(ledger: Path, delta: float, *, simulated: bool) -> float | None:
    if not ledger.exists():
        return None
    from client.privacy.ledger import Ledger

    with Ledger(ledger, simulated=simulated) as opened:
        return opened.epsilon(delta) if opened.charges else None


def _lines(status: Status) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in vars(status).items():
        if isinstance(value, dict):
            rows += [(f"{key}.{name}", _cell(item)) for name, item in sorted(value.items())]
        else:
            rows.append((key, _cell(value)))
    return rows


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
