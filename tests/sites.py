"""Tiny virtual hospitals with real files, index and store, for tests of the whole service."""

from __future__ import annotations

from pathlib import Path

from client.policy import Policy
from client.site import Site, init_site, load_site
from tests.client.made import fill

POLICY = Policy(allow_non_private=True, min_patients=5, min_cell=1)


def image_site(folder: Path, name: str, patients: int = 40, split: str = "") -> Site:
    """A virtual hospital of 40 patients with one image each, or the one that is there already."""
    if (folder / "site.toml").exists():
        return load_site(folder)
    site = init_site(folder, name, simulation_seed=1, policy=POLICY)
    site.dicom.mkdir()
    fill(site, patients, 1, 2, split=split)
    return site
