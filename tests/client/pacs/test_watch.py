"""An Orthanc that is watched: new studies, late instances, restarts of either side, a database made anew."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from datetime import date
from pathlib import Path

import pytest

from client.pacs.arrivals import Arrivals
from client.pacs.inbox import Inbox
from client.pacs.journal import Journal
from client.pacs.pace import Pace
from client.pacs.query import Wanted
from client.pacs.remote import find_remote
from client.pacs.watch import ATTEMPTS, Seen, Watch
from client.pacs.web import Web
from client.site import Site
from tests.client.pacs.archive import (
    COMMAND,
    change_remote,
    environment,
    indexed,
    no_identifier,
    said,
    site_of,
    typed,
)
from tests.orthanc import Orthanc, running
from tests.studies import ct_study, study


def stable(orthanc: Orthanc, times: int) -> None:
    """Wait until the archive has called studies stable so often since it was emptied."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        changes = orthanc.rest("GET", "/changes?since=0&limit=100000")["Changes"]
        if sum(change["ChangeType"] == "StableStudy" for change in changes) >= times:
            return
        time.sleep(0.1)
    raise AssertionError


def looked(site: Site, wanted: Wanted | None = None) -> Seen:
    """One look of a watch that begins with what the journal knows, as after a restart."""
    caller = find_remote(site, None)
    with Journal.of(site) as journal, Web(caller, caller.remote.orthanc, "REST") as web:
        watch = Watch("archive", web, Arrivals(Inbox.of(site), journal, Pace(1e6)), wanted or Wanted())
        watch.look()
        return watch.seen


def test_new_studies_and_late_instances_are_taken_in(orthanc: Orthanc, tmp_path: Path) -> None:
    """By the command: a study that is stable comes in, and what joins it later comes too, once."""
    files = ct_study(0, 4, size=64)
    orthanc.upload(*files[:2], *study(1))
    site = site_of(tmp_path, orthanc)
    stable(orthanc, 2)
    for added, expected in (((), 3), (files[2:], 5), ((), 5)):
        orthanc.upload(*added)
        if added:
            stable(orthanc, 3)
        done = typed(site, "watch", "--once", "--workers", "1", "--json")
        assert done.returncode == 0, done.stderr
        no_identifier(done.stdout, done.stderr, said(site))
        assert len(indexed(site)) == expected
    assert json.loads(done.stdout)["seen"]["instances"] == 0


def test_only_what_is_wanted_is_fetched(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(*ct_study(0, 2, size=64), *study(1), *study(2, BodyPartExamined="HAND"))
    site = site_of(tmp_path, orthanc)
    stable(orthanc, 3)
    seen = looked(site, Wanted(modalities=("CR",), body_parts=("HAND",)))
    assert (seen.studies, seen.instances) == (1, 1)


@pytest.mark.parametrize(
    ("wanted", "studies"),
    [
        (Wanted(accessions=("ACC000009",)), 0),
        (Wanted(accessions=("ACC000000", "ACC000002")), 2),
        (Wanted(begin=date(2023, 1, 5), end=date(2023, 1, 5)), 1),
        (Wanted(begin=date(2023, 1, 5), accessions=("ACC000000",)), 0),
    ],
)
def test_only_listed_orders_of_the_wanted_days_are_fetched(
    orthanc: Orthanc, tmp_path: Path, wanted: Wanted, studies: int
) -> None:
    orthanc.upload(*study(0), *study(1, StudyDate="20230105"), *study(2, StudyDate="20230106"))
    site = site_of(tmp_path, orthanc)
    stable(orthanc, 3)
    assert looked(site, wanted).instances == studies


def test_reports_are_passed_over(orthanc: Orthanc, tmp_path: Path) -> None:
    report = study(
        0,
        SeriesInstanceUID="1.2.276.0.7230010.3.1.7",
        Modality="SR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
    )
    orthanc.upload(*study(0), *report)
    site = site_of(tmp_path, orthanc)
    stable(orthanc, 1)
    seen = looked(site)
    assert (seen.instances, seen.passed_over) == (1, 1)


def test_changes_are_read_on_from_the_last_and_a_deleted_study_is_no_hindrance(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """A second look reads nothing again; a study that is gone meanwhile stops nobody."""
    orthanc.upload(*study(0), *study(1))
    site = site_of(tmp_path, orthanc)
    stable(orthanc, 2)
    assert looked(site).studies == 2
    assert looked(site).changes == 0
    orthanc.upload(*study(2), *study(3))
    stable(orthanc, 4)
    gone = next(
        name
        for name in orthanc.studies()
        if orthanc.rest("GET", f"/studies/{name}")["MainDicomTags"]["AccessionNumber"] == "ACC000002"
    )
    orthanc.rest("DELETE", f"/studies/{gone}")
    seen = looked(site)
    assert (seen.instances, seen.restarts) == (1, 0)


def test_a_restart_and_a_database_made_anew(tmp_path: Path) -> None:
    """The archive restarts: the list goes on. Its database is made anew: the list is read from its beginning."""
    with running(tmp_path / "one") as server:
        server.upload(*study(0), *study(1), *study(2))
        site = site_of(tmp_path / "site", server)
        stable(server, 3)
        assert looked(site).instances == 3
    with running(tmp_path / "one") as server:
        site = change_remote(site, orthanc=server.url)
        seen = looked(site)
        assert (seen.instances, seen.restarts) == (0, 0)
        server.upload(*study(3))
        stable(server, 4)
        assert looked(site).instances == 1
    with running(tmp_path / "two") as server:
        site = change_remote(site, orthanc=server.url)
        server.upload(*study(4))
        stable(server, 1)
        seen = looked(site)
        assert (seen.restarts, seen.instances) == (1, 1)
        # As long as the old list was, and longer: the same numbers now mean other changes.
        server.upload(*(file for number in range(5, 12) for file in study(number)))
        stable(server, 8)
        assert looked(site).instances == 7
    assert Inbox.of(site).count() == 12


def test_a_list_of_other_changes_is_told_from_the_same(tmp_path: Path) -> None:
    """The new database has more changes than were read of the old one: only their content tells them apart."""
    with running(tmp_path / "one") as server:
        server.upload(*study(0))
        site = site_of(tmp_path / "site", server)
        stable(server, 1)
        assert looked(site).instances == 1
    with running(tmp_path / "two") as server:
        site = change_remote(site, orthanc=server.url)
        server.upload(*(file for number in range(1, 6) for file in study(number)))
        stable(server, 5)
        seen = looked(site)
        assert (seen.restarts, seen.instances) == (1, 5)


def test_a_study_that_fails_is_asked_for_again_and_at_last_left(tmp_path: Path) -> None:
    """Others come at once; the place in the list stays before it until the last attempt."""
    with running(tmp_path / "one", {"MaximumStorageCacheSize": 0}) as server:
        names = server.upload(*study(0), *study(1))
        uuid = server.rest("GET", f"/instances/{names[0]}/attachments/dicom/info")["Uuid"]
        (server.folder / "storage" / uuid[:2] / uuid[2:4] / uuid).unlink()
        site = site_of(tmp_path / "site", server)
        stable(server, 2)
        counts = [looked(site) for _ in range(ATTEMPTS + 1)]
        assert [seen.failed for seen in counts] == [1] * ATTEMPTS + [0]
        assert sum(seen.instances for seen in counts) == 1
        assert counts[-1].changes == 0
        with Journal.of(site) as journal:
            assert len(journal.failed("archive")) == 1


def test_a_watch_that_is_killed_and_one_that_is_stopped(orthanc: Orthanc, tmp_path: Path) -> None:
    """SIGKILL loses nothing, SIGTERM ends it with its counts, and the archive may be away meanwhile."""
    orthanc.upload(*ct_study(0, 30, size=64))
    site = site_of(tmp_path, orthanc)
    change_remote(site, instances_per_s=20.0)
    stable(orthanc, 1)
    command = [COMMAND, "pacs", "watch", "--every", "0.2", "--no-take", "--json", "--site", site.folder]
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
        )
        goal = 8 if number == signal.SIGKILL else 30
        until = time.monotonic() + 60
        while len(list(site.inbox.rglob("*.dcm"))) < goal and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        no_identifier(out, err)
        change_remote(site, instances_per_s=10_000.0)
    assert process.returncode == 0, err
    assert json.loads(out)["seen"]["instances"] <= 23
    assert Inbox.of(site).count() == 30


def test_a_remote_without_orthanc_says_what_else_can_be_done(orthanc: Orthanc, tmp_path: Path) -> None:
    site = change_remote(site_of(tmp_path, orthanc), orthanc="")
    done = typed(site, "watch", "--once")
    assert done.returncode == 8
    assert "pacs listen" in done.stderr


def test_another_server_is_not_taken_for_orthanc(orthanc: Orthanc, tmp_path: Path) -> None:
    """DICOMweb's address instead of Orthanc's root: a clear word, no endless waiting."""
    site = site_of(tmp_path, orthanc)
    done = typed(change_remote(site, orthanc=orthanc.dicomweb), "watch", "--once")
    assert done.returncode == 8
    no_identifier(done.stderr)
