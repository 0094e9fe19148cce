"""An archive that answers an echo and no question: `pacs echo` must not call it well."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from client.pacs.echo import Echo, echoes
from client.pacs.settings import Remote
from client.site import Site
from tests.client.intake_files import new_site
from tests.client.pacs.listening import SOCKETS
from tests.orthanc import free_port

FIND = StudyRootQueryRetrieveInformationModelFind


class Archive:
    """One that notes what it is asked and answers every question with these statuses."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = statuses
        self.asked: list[Dataset] = []

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        for status in self.statuses:
            yield status, Dataset() if status == 0xFF00 else None

    @contextmanager
    def running(self, *services: str) -> Iterator[int]:
        """Serve these on a port of this machine."""
        port = free_port()
        entity = AE(ae_title="ARCHIVE")
        for service in services:
            entity.add_supported_context(service)
        served = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_C_FIND, self.find), (evt.EVT_CONN_OPEN, _remember)],
        )
        try:
            yield port
        finally:
            served.shutdown()


def _remember(event: evt.Event) -> None:
    """The side that is asked leaves its socket open, too, where the other side closed first."""
    SOCKETS.append(event.assoc.dul.socket.socket)


@pytest.fixture
def site(tmp_path) -> Site:
    return new_site(tmp_path / "site")


def told(site: Site, port: int) -> dict[str, Echo]:
    """What `pacs echo` says of the archive at this port."""
    remote = Remote(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=port)
    there = dataclasses.replace(site, pacs=dataclasses.replace(site.pacs, remotes=(remote,)))
    return {one.what: one for one in echoes(there)}


def test_an_archive_that_answers_a_question_is_well(site: Site) -> None:
    archive = Archive()
    with archive.running(Verification, FIND) as port:
        answers = told(site, port)
    assert {what: one.ok for what, one in answers.items()} == {"C-ECHO": True, "C-FIND": True}
    (question,) = archive.asked
    assert question.QueryRetrieveLevel == "STUDY"
    assert question.StudyInstanceUID.startswith("2.25."), "a study that nobody has: no list is fetched"


def test_an_archive_that_offers_no_query_is_named(site: Site) -> None:
    with Archive().running(Verification) as port:
        answers = told(site, port)
    assert answers["C-ECHO"].ok
    assert not answers["C-FIND"].ok
    assert answers["C-FIND"].code == "pacs-unsupported"
    assert answers["C-FIND"].remedy


@pytest.mark.parametrize(
    ("status", "code"),
    [(0xA700, "pacs-status"), (0xA900, "pacs-status"), (0xC001, "pacs-status"), (0x0122, "pacs-status")],
)
def test_a_question_that_ends_with_a_failure_is_named(site: Site, status: int, code: str) -> None:
    with Archive(status).running(Verification, FIND) as port:
        answers = told(site, port)
    assert answers["C-ECHO"].ok
    found = answers["C-FIND"]
    assert (found.ok, found.code) == (False, code)
    assert f"0x{status:04X}" in found.rule
    assert "AE title" in found.remedy


def test_where_no_echo_is_answered_no_question_is_asked(site: Site) -> None:
    """One line for one mistake."""
    archive = Archive()
    with archive.running(FIND) as port:
        answers = told(site, port)
    assert {what: one.code for what, one in answers.items()} == {"C-ECHO": "pacs-unsupported"}
    assert not archive.asked
