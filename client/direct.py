"""Virtual hospitals in this process: the service object instead of its socket, one per site folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from client.service import SiteService
from client.site import load_site
from common.errors import FederationError

_SERVICES: Final[dict[Path, SiteService]] = {}


def host(service: SiteService) -> None:
    """Answer for this service's site folder in this process from now on."""
    _SERVICES[service.site.folder.resolve()] = service


def find(folder: Path) -> SiteService:
    """The service of a site folder, made on first use.

    Raises:
        SettingsError: when the folder holds no site.
    """
    folder = folder.resolve()
    if folder not in _SERVICES:
        _SERVICES[folder] = SiteService(load_site(folder))
    return _SERVICES[folder]


def site_folder(federation: Path, partition: int) -> Path:
    """The folder of the nth virtual hospital, in the order of their names.

    Raises:
        FederationError: code `no-site` when there are fewer.
    """
    folders = sorted(path.parent for path in federation.glob("*/site.toml"))
    if not 0 <= partition < len(folders):
        raise FederationError(
            "node", "there is no site for it", "Start as many nodes as there are sites", code="no-site"
        )
    return folders[partition]
