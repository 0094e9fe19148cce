"""A site that knows the archive of the tests, and its commands as a hospital types them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from client.index import Index
from client.site import Site, init_site, load_site
from tests.orthanc import PASSWORD, USER, Orthanc, free_port

COMMAND = Path(sys.executable).parent / "consilium-site"
CANARIES = (
    "Abendroth",
    "Wilhelmina",
    "HOSP-77",
    "ACC00",
    "1.2.276.0.7230010",
    "Quackenbush",
    "Florian",
    PASSWORD,
)
"""What `tests.studies` writes into every study, and the password."""


def remote_of(server: Orthanc, **changes: object) -> dict[str, Any]:
    """One [[pacs.remotes]] section with every address of the server."""
    return {
        "name": "archive",
        "ae_title": server.ae_title,
        "host": server.host,
        "port": server.dicom_port,
        "dicomweb": server.dicomweb,
        "orthanc": server.url,
        "user": USER,
        "password_file": "archive.password",
        "instances_per_s": 10_000.0,
        **changes,
    }


def site_of(folder: Path, orthanc: Orthanc, *remotes: dict[str, Any], **pacs: Any) -> Site:
    """A site that may ask this archive, which knows the site as CONSILIUM; always with the same keys."""
    init_site(folder, "tester", simulation_seed=5)
    (folder / "archive.password").write_text(PASSWORD)
    (folder / "archive.password").chmod(0o600)
    port = free_port()
    settings = tomllib.loads((folder / "site.toml").read_text())
    settings["deid"] = {"burned_in_text": "ignore"}  # noise has no text, and reading it takes long
    settings["pacs"] = {
        "listen": {"port": port, "floor_gib": 0.001, "quiet_s": 0.5},
        "remotes": list(remotes) or [remote_of(orthanc)],
        **pacs,
    }
    (folder / "site.toml").write_text(tomli_w.dumps(settings))
    orthanc.know("site", "CONSILIUM", port)
    return load_site(folder)


def change_remote(site: Site, **changes: object) -> Site:
    """The same site with other values in its only remote."""
    path = site.folder / "site.toml"
    settings = tomllib.loads(path.read_text())
    settings["pacs"]["remotes"][0].update(changes)
    path.write_text(tomli_w.dumps(settings))
    return load_site(site.folder)


def typed(site: Site, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`consilium-site pacs …` to its end."""
    return subprocess.run(
        [COMMAND, "pacs", *words, "--site", site.folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Ours, on one core and without a proxy between."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def indexed(site: Site) -> list[tuple[Any, ...]]:
    """Every image of the index with the digest of its pixels; none in an index whose tables another process is making."""
    with Index(site.index):
        """Opening waits until the tables are there."""
    with sqlite3.connect(site.index) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(images)")]
        rows = db.execute("SELECT * FROM images").fetchall()
    db.close()
    drop = {"added", "id", "ingest"}
    return sorted(
        tuple(value for name, value in zip(columns, row, strict=True) if name not in drop) for row in rows
    )


def no_identifier(*texts: str | bytes) -> None:
    """Fail when one of the canaries stands in a text."""
    for text in texts:
        plain = text.decode("latin-1") if isinstance(text, bytes) else text
        assert [canary for canary in CANARIES if canary.casefold() in plain.casefold()] == []


def said(site: Site) -> bytes:
    """Everything that the site keeps outside inbox and quarantine: state, audit, journal, index, store."""
    kept = (path for folder in (site.state, site.data) for path in folder.rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in kept if "quarantine" not in path.parts)
