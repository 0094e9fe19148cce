"""Virtual hospitals in this process: the service object instead of its socket, one per site folder."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final

from client.service import SiteService
from client.site import load_site
from common.errors import FederationError

KEPT: Final = 32
"""Services that are kept at hand once they were found. One that is let go is made again from its folder, where all it
knows lies; so a thousand hospitals take no more memory than these."""
_HOSTED: Final[dict[Path, SiteService]] = {}
_FOUND: Final[OrderedDict[Path, SiteService]] = OrderedDict()


def host(service: SiteService) -> None:
    """Answer for this service's site folder in this process from now on."""
    _HOSTED[service.site.folder.resolve()] = service


def find(folder: Path) -> SiteService:
    """The service of a site folder, made on first use and kept while it is among the last that were used.

    Raises:
        SettingsError: when the folder holds no site.
    """
    folder = folder.resolve()
    if folder in _HOSTED:
        return _HOSTED[folder]
    if folder not in _FOUND:
        _FOUND[folder] = SiteService(load_site(folder))
        if len(_FOUND) > KEPT:
            _FOUND.popitem(last=False)
    _FOUND.move_to_end(folder)
    return _FOUND[folder]


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


def kept() -> int:
    """How many services that were found are at hand."""
    return len(_FOUND)
