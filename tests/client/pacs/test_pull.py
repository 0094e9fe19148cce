"""Pulls from a real archive: three ways to one index, killed and repeated, with failures that stay apart."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import tomli_w
from pydicom import dcmread

from client.pacs.failures import bad_status
from client.pacs.inbox import Inbox
from client.pacs.journal import Journal
from client.site import Site
from tests.client.pacs.archive import (
    COMMAND,
    change_remote,
    environment,
    indexed,
    no_identifier,
    remote_of,
    said,
    site_of,
    typed,
)
from tests.client.pacs.listening import command, wait_for
from tests.orthanc import Orthanc, running, stop
from tests.studies import ct_study, study

VIAS = ("get", "web", "move")


def pulled(site: Site, *words: str | Path, status: int = 0) -> dict:
    """`pacs pull --json`, which must end with this status."""
    done = typed(site, "pull", "--workers", "1", "--json", *words)
    assert done.returncode == status, done.stderr
    no_identifier(done.stdout, done.stderr, said(site))
    return json.loads(done.stdout)


def files_of(inbox: Path) -> dict[str, bytes]:
    """Name to what stands behind the file meta, of every file that waits."""
    found = {}
    for path in inbox.rglob("*.dcm"):
        data = path.read_bytes()
        length = int.from_bytes(data[140:144], "little")
        found[path.name.partition("-")[0]] = data[144 + length :]
    return found


def break_file(orthanc: Orthanc, instance: str) -> None:
    """Take one instance's file away under the archive, as a damaged disk does."""
    uuid = orthanc.rest("GET", f"/instances/{instance}/attachments/dicom/info")["Uuid"]
    (orthanc.folder / "storage" / uuid[:2] / uuid[2:4] / uuid).unlink()


def test_three_ways_bring_the_same_bytes_and_the_same_index(orthanc: Orthanc, tmp_path: Path) -> None:
    """Compressed and native studies by C-GET, DICOMweb and C-MOVE: equal data sets, equal index, nothing twice."""
    files = [*study(0, 2), *ct_study(1, 5, size=96), *study(2, 1)]
    orthanc.upload(*files)
    inboxes, indexes = [], []
    for via in VIAS:
        site = site_of(tmp_path / via, orthanc)
        answer = pulled(site, "--via", via, "--no-take")["pulled"]
        assert (answer["via"], answer["studies"], answer["whole"], answer["instances"]) == (via, 3, 3, 8)
        inboxes.append(files_of(site.inbox))
        answer = pulled(site, "--via", via)
        assert (answer["pulled"]["instances"], answer["taken"]["images"]) == (0, 8)
        indexes.append(indexed(site))
    assert inboxes[0] == inboxes[1] == inboxes[2]
    assert indexes[0] == indexes[1] == indexes[2]
    assert len(indexes[0]) == 8


def test_compressed_pixels_come_as_they_are_stored(orthanc: Orthanc, tmp_path: Path) -> None:
    """No way lets the archive re-encode: what is in the inbox is what was uploaded."""
    ds = dcmread(io.BytesIO(study(0)[0]))
    ds.compress("1.2.840.10008.1.2.4.80", generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    orthanc.upload(buffer.getvalue())
    stored = buffer.getvalue()
    behind = stored[144 + int.from_bytes(stored[140:144], "little") :]
    for via in VIAS:
        site = site_of(tmp_path / via, orthanc)
        pulled(site, "--via", via, "--no-take")
        assert list(files_of(site.inbox).values()) == [behind]


def test_without_a_word_the_first_way_that_works_is_used(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(*study(0))
    site = site_of(tmp_path, orthanc)
    assert pulled(site, "--no-take")["pulled"]["via"] == "get"
    assert pulled(change_remote(site, host=""), "--no-take", "--again")["pulled"]["via"] == "web"


def test_exactly_the_labelled_studies_come(orthanc: Orthanc, tmp_path: Path) -> None:
    """The label table is the list; the number that nobody has is counted, and labels meet their images."""
    orthanc.upload(*(file for number in range(4) for file in study(number)))
    site = site_of(tmp_path / "site", orthanc)
    table = tmp_path / "labels.csv"
    table.write_text("accession,label,source,version\nACC000001,1,reader,1\nACC000003,0,reader,1\n")
    answer = pulled(site, "--accessions", table, "--labels", table)
    assert (answer["pulled"]["studies"], answer["pulled"]["instances"]) == (2, 2)
    assert answer["taken"]["images"] == 2
    table.write_text("accession,label,source,version\nACC999999,1,reader,1\n")
    answer = pulled(site, "--accessions", table)["pulled"]
    assert (answer["studies"], answer["accessions_not_found"]) == (0, 1)


def test_only_the_wanted_series_comes(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(*ct_study(0, 3, size=64), *study(0, 2, SeriesInstanceUID="1.2.276.0.7230010.3.1.9"))
    for via in VIAS:
        site = site_of(tmp_path / via, orthanc)
        assert pulled(site, "--via", via, "--modality", "CR", "--no-take")["pulled"]["instances"] == 2


def test_a_pull_that_was_killed_goes_on(orthanc: Orthanc, tmp_path: Path) -> None:
    """kill -9 in the middle, then the same command: the rest is fetched, once, and the index is as undisturbed."""
    orthanc.upload(*ct_study(0, 30, size=64), *study(1, 2))
    undisturbed = site_of(tmp_path / "undisturbed", orthanc)
    pulled(undisturbed)
    for via in VIAS:
        site = site_of(tmp_path / via, orthanc, remote_of(orthanc, instances_per_s=5.0))
        held = killed_after(8, site, via)
        answer = pulled(change_remote(site, instances_per_s=10_000.0), "--via", via)
        assert answer["pulled"]["instances"] == 32 - held
        assert answer["pulled"]["whole"] == 2
        assert indexed(site) == indexed(undisturbed)
        assert len(indexed(site)) == 32


def killed_after(files: int, site: Site, via: str) -> int:
    """Begin a pull and kill it when so many files are in the inbox; how many it had noted."""
    command = [COMMAND, "pacs", "pull", "--via", via, "--workers", "1", "--site", site.folder]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    until = time.monotonic() + 60
    while len(list(site.inbox.rglob("*.dcm"))) < files and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Journal.of(site) as journal:
        held = sum(journal.count(f"1.2.276.0.7230010.3.{number}.1") for number in (1, 2))
    assert files - 1 <= held < 32
    return held


def test_one_study_that_fails_stops_no_other(tmp_path: Path) -> None:
    """An instance that the archive cannot read: its companions come, its study is named, and comes when it is mended."""
    files = [*ct_study(0, 6, size=64), *study(1), *study(2)]
    with running(tmp_path / "server", {"MaximumStorageCacheSize": 0}) as server:
        names = server.upload(*files)
        break_file(server, names[2])
        sites = {via: site_of(tmp_path / via, server) for via in VIAS}
        codes = {via: failed_study(via, site) for via, site in sites.items()}
        server.rest("DELETE", f"/instances/{names[2]}")
        server.upload(files[2])
        for via, site in sites.items():
            answer = pulled(site, "--via", via, "--no-take")["pulled"]
            assert answer["whole"] == 3
            assert answer["instances"] == 1 or via == "web"
            assert Inbox.of(site).count() == 8
            with Journal.of(site) as journal:
                assert journal.failed("archive") == {}
    assert set(codes.values()) <= {"pacs-status", "pacs-server", "pacs-missing", "pacs-lost", "pacs-answer"}


def failed_study(via: str, site: Site) -> str:
    """A pull in which one of three studies lacks one of its six instances; the reason it gives."""
    answer = pulled(site, "--via", via, "--attempts", "2", "--no-take", status=8)["pulled"]
    assert (answer["studies"], answer["whole"]) == (3, 2)
    # Orthanc's QIDO-RS opens every file to list a series: what stands behind the damaged one cannot be named.
    assert answer["instances"] == 7 or (via == "web" and answer["instances"] >= 2)
    (failed,) = answer["failed"]
    assert failed["remedy"]
    with Journal.of(site) as journal:
        assert journal.failed("archive") == {failed["study"]: failed["code"]}
    return str(failed["code"])


def test_what_is_no_image_is_passed_over_and_said(orthanc: Orthanc, tmp_path: Path) -> None:
    """A report in the study is not fetched: it could only end in quarantine."""
    orthanc.upload(
        *study(0, 2),
        *study(
            0,
            1,
            SeriesInstanceUID="1.2.276.0.7230010.3.1.7",
            Modality="SR",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
        ),
    )
    for via in VIAS:
        site = site_of(tmp_path / via, orthanc)
        answer = pulled(site, "--via", via, "--no-take")["pulled"]
        assert (answer["instances"], answer["passed_over"], answer["whole"]) == (2, 1, 1)


def test_late_instances_of_a_study_that_was_whole_are_fetched(orthanc: Orthanc, tmp_path: Path) -> None:
    files = ct_study(0, 5, size=64)
    orthanc.upload(*files[:3])
    site = site_of(tmp_path, orthanc)
    assert pulled(site)["taken"]["images"] == 3
    orthanc.upload(*files[3:])
    answer = pulled(site)
    assert (answer["pulled"]["instances"], answer["taken"]["images"]) == (2, 2)
    assert len(indexed(site)) == 5


def test_again_fetches_what_was_fetched(orthanc: Orthanc, tmp_path: Path) -> None:
    """For an archive that corrected a study; intake knows what did not change."""
    orthanc.upload(*study(0, 2))
    site = site_of(tmp_path, orthanc)
    pulled(site)
    answer = pulled(site, "--again")
    assert (answer["pulled"]["instances"], answer["taken"]["known"]) == (2, 2)


@pytest.mark.parametrize("via", ["get", "move"])
def test_an_archive_that_does_not_know_us(orthanc: Orthanc, tmp_path: Path, via: str) -> None:
    """It accepts the association and ends it at the first question: said with what to enter there."""
    orthanc.upload(*study(0))
    site = site_of(tmp_path, orthanc, ae_title="STRANGER")
    done = typed(site, "pull", "--via", via)
    assert done.returncode == 8
    assert "knows our AE title" in done.stderr
    no_identifier(done.stdout, done.stderr)


def test_an_unknown_destination_says_what_to_enter() -> None:
    """PS3.4 C.4.2.1.5: 0xA801, move destination unknown."""
    error = bad_status("archive", "C-MOVE", 0xA801)
    assert error.code == "pacs-destination"
    assert "[pacs.listen]" in error.remedy


def test_c_move_with_our_port_in_use(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(*study(0))
    site = site_of(tmp_path, orthanc)
    with socket.create_server(("127.0.0.1", site.pacs.listen.port)):
        done = typed(site, "pull", "--via", "move")
    assert done.returncode == 8
    assert "another program" in done.stderr


def let_in(site: Site, *titles: str) -> None:
    """Write the senders that the listener of this site lets in."""
    path = site.folder / "site.toml"
    settings = tomllib.loads(path.read_text())
    settings["pacs"]["listen"] |= {"calling": list(titles), "quiet_s": 3.0}
    path.write_text(tomli_w.dumps(settings))


def test_c_move_while_our_own_listener_runs(orthanc: Orthanc, tmp_path: Path) -> None:
    """What the archive sends goes to the listener that runs; the pull watches the inbox, and both know it is all there."""
    orthanc.upload(*study(0, 2), *ct_study(1, 5, size=96))
    site = site_of(tmp_path, orthanc)
    let_in(site, orthanc.ae_title)
    with command(site, "--workers", "1") as listening:
        answer = pulled(site, "--via", "move")["pulled"]
        assert (answer["whole"], answer["instances"], answer["failed"]) == (2, 7, [])
        assert pulled(site, "--via", "move")["pulled"]["instances"] == 0
        wait_for(lambda: site.index.exists() and len(indexed(site)) == 7, 120)
        assert listening.stop() == 0


def test_c_move_to_a_listener_that_does_not_let_the_archive_in(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(*study(0))
    site = site_of(tmp_path, orthanc)
    let_in(site, "SOMEBODY")
    with command(site, "--workers", "1"):
        done = typed(site, "pull", "--via", "move")
    assert done.returncode == 8
    assert "does not let remote archive send" in done.stderr


def test_an_archive_that_goes_away_ends_the_pull_and_keeps_what_came(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """Nobody answers for several studies running: the pull ends with what it has, and the next one goes on."""
    with running(tmp_path / "server") as server:
        server.upload(*(file for number in range(14) for file in study(number)))
        site = site_of(tmp_path / "site", server, remote_of(server, instances_per_s=2.0))
        process = subprocess.Popen(
            [
                COMMAND,
                "pacs",
                "pull",
                "--via",
                "web",
                "--json",
                "--attempts",
                "1",
                "--no-take",
                "--site",
                site.folder,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        until = time.monotonic() + 60
        while not list(site.inbox.rglob("*.dcm")) and time.monotonic() < until:
            time.sleep(0.01)
        stop(server)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 8, err
    answer = json.loads(out)["pulled"]
    assert answer["stopped"]["code"] in ("pacs-unreachable", "pacs-refused")
    assert 1 <= answer["instances"] < 14
    no_identifier(out, err)


def test_a_full_inbox_ends_the_pull_by_name(orthanc: Orthanc, tmp_path: Path) -> None:
    """Above the backlog with nobody who takes in: what came stays, and the message says what to do."""
    orthanc.upload(*ct_study(0, 12, size=64), *study(1))
    limits = {"port": 11112, "floor_gib": 0.001, "backlog": 5}
    site = site_of(tmp_path, orthanc, listen=limits)
    answer = pulled(site, "--via", "web", "--no-take", status=8)["pulled"]
    assert answer["stopped"]["code"] == "inbox-backlog"
    assert Inbox.of(site).count() == answer["instances"] == 5
