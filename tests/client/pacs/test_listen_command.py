"""`consilium-site pacs listen` as a hospital runs it: from the archive to the index, killed, stopped, short of disk."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from client.index import Index
from client.site import Site, load_site
from common.audit import read, verify
from tests.client.intake_files import image, to_bytes
from tests.client.pacs.listening import (
    CALLED,
    association,
    command,
    dcmtk,
    held,
    listening_site,
    send,
    store,
    wait_for,
    written,
)
from tests.orthanc import Orthanc
from tests.studies import ct_study, dataset, study

NAMES = (b"Abendroth", b"HOSP-77", b"ACC0", b"1.2.276", b"Quackenbush", b"Sankt Florian", b"19550417")


def rows(site: Site) -> list[tuple[str, ...]]:
    """What the index holds, in an order of its own."""
    with Index(site.index) as index:
        found = [(r.sop_uid, r.study_uid, r.patient, r.pixel_digest, r.file) for r in index.images()]
    return sorted(found)


def count(site: Site) -> int:
    """Images in the index."""
    return len(rows(site)) if site.index.exists() else 0


def nobody_named(site: Site, *logs: Path) -> None:
    """No log or audit line, and no name of a file or folder, tells of a patient."""
    said = b"".join(path.read_bytes() for path in (*logs, site.audit))
    said += b"".join(str(path.relative_to(site.folder)).encode() for path in site.folder.rglob("*"))
    assert [name for name in NAMES if name in said] == []


def test_from_the_archive_to_the_index_once(tmp_path: Path, orthanc: Orthanc) -> None:
    """With --once it ends by itself; the inbox is empty, the audit log whole, and nobody is named."""
    site = listening_site(tmp_path / "site")
    files = study(0, 2) + study(1, 1) + ct_study(2, 3, size=96)
    orthanc.upload(*files)
    orthanc.know("site", CALLED, site.pacs.listen.port)
    with command(site, "--once", "--json", "--workers", "1") as running:
        assert orthanc.store("site", *orthanc.studies())["FailedInstancesCount"] == 0
        assert running.process.wait(120) == 0
        result = json.loads("{" + running.log.read_text().rpartition("\n{")[2])
    assert (result["studies"], result["images taken in"], result["files refused"]) == (3, 6, 0)
    assert count(site) == 6
    assert held(site) == []
    verify(site.audit)
    nobody_named(site, running.log)


def test_a_late_instance_joins_its_study(tmp_path: Path) -> None:
    """It comes after its study was taken in, and lands in the same pseudonymous study; again changes nothing."""
    site = listening_site(tmp_path / "site")
    first, late = study(4, 3)[:2], study(4, 3)[2:]
    with command(site, "--workers", "1") as running:
        assert send(site, first) == [0, 0]
        wait_for(lambda: count(site) == 2)
        assert send(site, late) == [0]
        wait_for(lambda: count(site) == 3)
        before = rows(site)
        assert send(site, first + late) == [0, 0, 0]
        wait_for(lambda: not held(site))
        assert running.stop() == 0
    assert rows(site) == before
    assert len({study_uid for _, study_uid, *_ in before}) == 1


def test_one_hostile_study_does_not_stop_the_others(tmp_path: Path) -> None:
    """Nonsense and a cut-off image go to quarantine by name; the studies beside them are taken in."""
    site = listening_site(tmp_path / "site")
    good, whole = study(0, 2), to_bytes(image(5))
    head = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    with command(site, "--once", "--workers", "1") as running:
        assert send(site, [*good[:1], whole[:900], head + b"\xff" * 3000, *good[1:]]) == [0] * 4
        assert running.process.wait(120) == 0
    assert count(site) == 2
    assert held(site) == []
    assert len(list(site.quarantine.glob("*.json"))) == 2
    nobody_named(site, running.log)


def test_killed_in_the_middle_and_sent_again(tmp_path: Path) -> None:
    """kill -9 while 60 instances come, twice: no acknowledged one is lost, none is there twice, and the index is
    that of a site that nobody disturbed.
    """
    site, other = listening_site(tmp_path / "site"), listening_site(tmp_path / "other")
    for key in site.folder.joinpath("secrets").iterdir():
        other.folder.joinpath("secrets", key.name).write_bytes(key.read_bytes())
    other = load_site(other.folder)
    files = [file for number in range(3) for file in study(number, 20)]
    for kill_at in (7, 31):
        with command(site) as running:
            acknowledged = _until_killed(site, files, kill_at, running.process.pid)
        # The last one on disk may have been killed before its acknowledgement left.
        assert kill_at - 1 <= acknowledged <= len(held(site)) + count(site)
    for one in (site, other):
        with command(one, "--once", "--workers", "1") as running:
            assert send(one, files) == [0] * 60
            assert running.process.wait(180) == 0
        assert held(one) == []
        assert not list((one.inbox / ".incoming").iterdir())
    assert rows(site) == rows(other)
    assert count(site) == 60


def _until_killed(site: Site, files: list[bytes], kill_at: int, pid: int) -> int:
    """Send; kill once so many are on disk; the number of instances acknowledged."""

    def kill() -> None:
        wait_for(lambda: len(held(site)) >= kill_at)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    acknowledged = 0
    for start in range(0, len(files), 2):
        try:
            acknowledged += send(site, files[start : start + 2]).count(0)
        except (OSError, RuntimeError):
            break
        if not killer.is_alive():
            break
    killer.join()
    return acknowledged


def test_killed_while_taking_in(tmp_path: Path) -> None:
    """kill -9 of the ingestion: the batch is still there, and the next start finishes it."""
    site = listening_site(tmp_path / "site")
    with command(site, "--workers", "1") as running:
        assert send(site, study(0, 30)) == [0] * 30
        wait_for(lambda: list((site.inbox / ".taking").iterdir()))
        time.sleep(0.5)
        running.process.kill()
        running.process.wait()
    assert len(held(site)) == 30 or count(site) == 30
    with command(site, "--once", "--workers", "1") as running:
        assert running.process.wait(120) == 0
    assert count(site) == 30, [path.read_text() for path in site.quarantine.glob("*.json")][:1]
    assert held(site) == []


def test_sigterm_lets_an_association_end(tmp_path: Path) -> None:
    """What is being sent arrives, a new association is refused, and what waits stays in the inbox."""
    site = listening_site(tmp_path / "site", quiet_s=600.0)
    files = study(0, 12)
    answers: list[int] = []
    with command(site) as running:
        sender = threading.Thread(target=lambda: answers.extend(_slowly(site, files)))
        sender.start()
        wait_for(lambda: len(held(site)) >= 3)
        running.process.terminate()
        sender.join()
        assert running.process.wait(60) == 0
    assert answers == [0] * 12
    assert len(held(site)) == 12
    assert count(site) == 0
    assert [line["event"] for line in read(site.audit)][-1] == "pacs.stopped"


def _slowly(site: Site, files: list[bytes]) -> list[int]:
    with_it = association(site, files)
    found = []
    for file in files:
        found.append(store(with_it, file))
        time.sleep(0.15)
    with_it.release()
    return found


def test_labels_are_joined_as_studies_come(tmp_path: Path) -> None:
    """A table given to the listener labels the images it names."""
    site = listening_site(tmp_path / "site")
    table = tmp_path / "labels.csv"
    table.write_text("accession,label,source,version\nACC000000,1,radiologist,1\nACC000001,0,radiologist,1\n")
    with command(site, "--once", "--workers", "1", "--labels", str(table)) as running:
        assert send(site, [to_bytes(dataset(number)) for number in (0, 1)]) == [0, 0]
        assert running.process.wait(120) == 0
    with Index(site.index) as index:
        assert sorted(row.label for row in index.images()) == [0, 1]


def test_a_table_of_labels_that_cannot_be_read_loses_nothing(tmp_path: Path) -> None:
    """It is named, the study waits, and the next start with a good table takes it in."""
    site = listening_site(tmp_path / "site")
    table = tmp_path / "labels.csv"
    table.write_text("nonsense\n")
    with command(site, "--once", "--labels", str(table)) as running:
        assert send(site, study(0)) == [0]
        assert running.process.wait(120) == 2
    assert b"labels.csv" in running.log.read_bytes()
    assert len(held(site)) == 1
    with command(site, "--once", "--workers", "1") as running:
        assert running.process.wait(120) == 0
    assert count(site) == 1


def test_a_second_listener_on_the_inbox_is_refused(tmp_path: Path) -> None:
    """One takes; the other says so and ends."""
    site = listening_site(tmp_path / "site")
    with command(site), command(site) as second:
        assert second.process.wait(60) == 2
        assert b"another listener" in second.log.read_bytes()


@pytest.mark.parametrize("size", [512])
def test_memory_stays_bounded_while_200_slices_come(tmp_path: Path, size: int) -> None:
    """200 CT slices of half a megabyte by dcmtk: all there, and the process grows by less than 60 MiB."""
    site = listening_site(tmp_path / "site", quiet_s=600.0)
    folder = written(tmp_path / "src", ct_study(0, 200, size=size))
    with command(site) as running:
        before = running.rss_mib()
        begun = time.monotonic()
        assert dcmtk(site, folder) == 0
        seconds = time.monotonic() - begun
        grown = running.rss_mib() - before
    assert len(held(site)) == 200
    assert grown < 60
    (tmp_path / "figures.json").write_text(json.dumps({"rss_before": before, "grown": grown, "s": seconds}))
