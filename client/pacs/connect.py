"""A remote made ready: how it is asked and how it is fetched from, closed at the end of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from client.pacs.arrivals import Arrivals
from client.pacs.fetch import GET, MOVE, WEB, Connection, choose
from client.pacs.find_dimse import DimseFinder
from client.pacs.find_web import WebFinder
from client.pacs.get import GetWay
from client.pacs.move import MoveWay
from client.pacs.query import Finder
from client.pacs.remote import Caller
from client.pacs.wado import WadoWay
from client.pacs.web import Web
from client.site import Site
from common.errors import InputError, PacsError

DIMSE = "dimse"


@contextmanager
def finder(caller: Caller, via: str | None) -> Iterator[Finder]:
    """How to ask: by C-FIND where the remote has an AE title, else by QIDO-RS; `web` and `dimse` choose.

    Raises:
        InputError: no way of that name.
        PacsError: the remote has no such address.
    """
    if via not in (None, WEB, DIMSE, GET, MOVE):
        raise InputError("--via", "there is no such way", "Choose dimse or web")
    if via == WEB or (via is None and not caller.dimse):
        with dicomweb(caller) as web:
            yield WebFinder(web)
        return
    asked = DimseFinder(caller)
    try:
        yield asked
    finally:
        asked.close()


@contextmanager
def connection(site: Site, caller: Caller, via: str | None, arrivals: Arrivals) -> Iterator[Connection]:
    """How to ask and to fetch.

    Raises:
        InputError: no way of that name.
        PacsError: the remote does not answer, or supports no such way; `pacs-port` for C-MOVE.
        SettingsError: certificates that cannot be used.
    """
    chosen = choose(caller, via)
    with ExitStack() as stack:
        if chosen == WEB:
            web = stack.enter_context(dicomweb(caller))
            yield Connection(WebFinder(web), WadoWay(web, arrivals, caller.remote.instances_per_s))
            return
        asked = DimseFinder(caller)
        stack.callback(asked.close)
        way = GetWay(caller, arrivals) if chosen == GET else MoveWay(caller, site, arrivals)
        stack.callback(way.close)
        yield Connection(asked, way)


def dicomweb(caller: Caller) -> Web:
    """A client of the remote's DICOMweb; use it as a context manager.

    Raises:
        PacsError: site.toml gives it none.
    """
    if not caller.remote.dicomweb:
        raise PacsError(
            f"remote {caller.name}",
            "site.toml gives it no DICOMweb address",
            "Add `dicomweb` to its [[pacs.remotes]] section, or use --via get or --via move",
            code="pacs-unsupported",
        )
    return Web(caller, caller.remote.dicomweb, "DICOMweb")
