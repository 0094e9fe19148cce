"""Every address of every remote tried once: C-ECHO and a question by C-FIND, QIDO-RS, Orthanc's REST."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from client.pacs.connect import dicomweb
from client.pacs.dimse import echo
from client.pacs.find_dimse import DimseFinder
from client.pacs.query import Wanted
from client.pacs.remote import Caller, caller
from client.pacs.settings import Remote
from client.pacs.web import DICOM_JSON, Web
from client.site import Site
from common.errors import ConsiliumError

_HERE = frozenset(("localhost", "127.0.0.1", "::1"))
_NOBODY = "2.25.230174466095813046517285036471184027359"
"""A study that no archive has, a random number once drawn: the question costs the archive one look."""


@dataclass(frozen=True)
class Echo:
    """One address."""

    remote: str
    what: str
    """C-ECHO, C-FIND, QIDO-RS or REST; `settings` when the remote could not be made ready."""
    ok: bool
    seconds: float
    code: str = ""
    rule: str = ""
    remedy: str = ""


def echoes(site: Site, name: str | None = None) -> Iterator[Echo]:
    """Try the addresses of all remotes, or of one; nothing is raised for what does not answer."""
    for remote in site.pacs.remotes:
        if name in (None, remote.name):
            yield from _of(site, remote)


def _of(site: Site, remote: Remote) -> Iterator[Echo]:
    try:
        who = caller(site, remote)
    except ConsiliumError as error:
        yield Echo(remote.name, "settings", False, 0.0, error.code, error.rule, error.remedy)
        return
    if who.dimse:
        answer = _tried(who, "C-ECHO", lambda: echo(who))
        yield answer
        if answer.ok:  # many archives answer an echo to anybody, and a question to whom they know
            yield _tried(who, "C-FIND", lambda: _find(who))
    if remote.dicomweb:
        yield _tried(who, "QIDO-RS", lambda: _qido(who), remote.dicomweb)
    if remote.orthanc:
        yield _tried(who, "REST", lambda: _system(who), remote.orthanc)
    if not (who.dimse or remote.dicomweb or remote.orthanc):
        yield Echo(
            remote.name, "settings", False, 0.0, "settings", "no address is named", "Complete this section"
        )


def _tried(who: Caller, what: str, ask: Callable[[], None], url: str = "") -> Echo:
    begun = time.monotonic()
    try:
        ask()
    except ConsiliumError as error:
        return Echo(who.name, what, False, time.monotonic() - begun, error.code, error.rule, error.remedy)
    open_to_all = bool(who.password) and url.startswith("http:") and urlsplit(url).hostname not in _HERE
    note = "user and password cross the network unencrypted" if open_to_all else ""
    return Echo(who.name, what, True, time.monotonic() - begun, rule=note)


def _find(who: Caller) -> None:
    finder = DimseFinder(who)
    try:
        for _ in finder.studies(Wanted(studies=(_NOBODY,))):
            pass
    finally:
        finder.close()


def _qido(who: Caller) -> None:
    with dicomweb(who) as web:
        web.json("studies", {"limit": "1"}, DICOM_JSON)


def _system(who: Caller) -> None:
    with Web(who, who.remote.orthanc, "REST") as web:
        web.json("system")
