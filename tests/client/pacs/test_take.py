"""What is in the inbox leaves it only by a committed ingestion, whatever goes wrong on the way."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from client.index import Index
from client.pacs import take
from client.pacs.inbox import Inbox
from client.pacs.take import Taker, Taking, alone
from client.site import Site
from common.errors import LabelError, StorageError
from tests.client.intake_files import new_site
from tests.studies import study


def filled(site: Site, *studies: list[bytes]) -> Inbox:
    """An inbox with these studies, quiet for long."""
    inbox = Inbox.of(site)
    for number, files in enumerate(studies):
        for n, file in enumerate(files):
            draft = inbox.draft()
            draft.write(file)
            inbox.keep(draft, f"study {number}", f"{number}.{n}")
    for folder in inbox.complete(0):
        os.utime(folder, (time.time() - 1000,) * 2)
    return inbox


def taker(site: Site, inbox: Inbox, labels: Path | None = None) -> Taker:
    """One worker, ten minutes of quiet: on a busy machine an ingestion lasts longer than seconds."""
    return Taker(site, inbox, Taking(600.0, labels, 1))


def images(site: Site) -> int:
    """In the index."""
    with Index(site.index) as index:
        return len(index.images())


def test_complete_studies_are_taken_by_one_ingestion(tmp_path: Path) -> None:
    """Three studies, one ingestion; the study that still arrives waits."""
    site = new_site(tmp_path / "site")
    inbox = filled(site, study(0, 2), study(1), study(2))
    draft = inbox.draft()
    draft.write(study(3)[0])
    inbox.keep(draft, "study 3", "3.0")
    one = taker(site, inbox)
    assert one.turn() == 1
    assert (one.taken.studies, one.taken.accepted) == (3, 4)
    assert inbox.count() == 1
    assert images(site) == 4
    assert one.turn() == 0


def test_another_ingestion_only_delays(tmp_path: Path) -> None:
    """While somebody else ingests, the batch waits and is then taken."""
    site = new_site(tmp_path / "site")
    inbox = filled(site, study(0))
    one = taker(site, inbox)
    with (site.data / ".ingest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one.turn()
        assert one.taken.error is not None
        assert one.taken.error.code == "storage-busy"
        assert inbox.count() == 1
        assert one.turn() == 0, "it pauses"
    for pause in one._pauses.values():
        pause.until = 0.0
    assert one.turn() == 1
    assert one.taken.error is None
    assert inbox.count() == 0


def test_pauses_grow_and_end_growing() -> None:
    """5, 10, 20 seconds, and never more than ten minutes."""
    pause = take._Pause()
    lengths = []
    for _ in range(12):
        lengths.append(pause.length_s)
        pause.grow()
    assert lengths[:3] == [5.0, 10.0, 20.0]
    assert lengths[-1] == take.LAST_PAUSE_S


def test_a_disk_that_refuses_keeps_the_batch(tmp_path: Path) -> None:
    """The site's data cannot be written: the inbox is whole, a later study is not lost either."""
    site = new_site(tmp_path / "site")
    inbox = filled(site, study(0), study(1))
    site.data.rmdir()
    site.data.write_text("not a folder")
    one = taker(site, inbox)
    one.turn()
    assert isinstance(one.taken.error, StorageError)
    assert inbox.count() == 2
    site.data.unlink()
    site.data.mkdir()
    again = taker(site, Inbox.of(site))
    assert again.turn() == 1
    assert images(site) == 2


def test_a_study_that_contradicts_the_labels_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """The table fails for a batch as a whole; apart, the good study goes in and the other waits, named."""
    site = new_site(tmp_path / "site")
    table = tmp_path / "labels.csv"
    table.write_text(
        "accession,label,source,version,split\nACC000000,1,reader,1,train\nACC000001,0,reader,1,test\n"
    )
    twice = study(1, 1, PatientID="HOSP-7700000", PatientName="Abendroth0^Wilhelmina")
    inbox = filled(site, study(0), twice)
    one = taker(site, inbox, table)
    one.turn()
    assert inbox.count() == 2
    one.turn()
    assert images(site) + inbox.count() == 2


def test_a_table_may_name_studies_that_are_still_to_come(tmp_path: Path) -> None:
    """Labels wait, whatever the order in which studies arrive; corrected ones are read with the next batch."""
    site = new_site(tmp_path / "site")
    table = tmp_path / "labels.csv"
    lines = [f"ACC{number:06d},{number % 2},reader,1" for number in range(9)]
    table.write_text("\n".join(["accession,label,source,version", *lines]) + "\n")
    inbox = filled(site, study(1))
    one = taker(site, inbox, table)
    one.turn()
    assert (images(site), inbox.count(), one.taken.error) == (1, 0, None)
    table.write_text("accession,label,source,version\nACC000001,0,reader,2\nACC000003,1,reader,2\n")
    taker(site, filled(site, study(2), study(3)), table).turn()
    with Index(site.index) as index:
        labels = sorted((row.label, row.label_version) for row in index.images())
    assert labels == [(0, "1"), (0, "2"), (1, "2")]


def test_a_bad_table_stops_nothing_but_itself(tmp_path: Path) -> None:
    """The studies wait; with the table mended they go in."""
    site = new_site(tmp_path / "site")
    table = tmp_path / "labels.csv"
    table.write_text("x\n")
    inbox = filled(site, study(0), study(1))
    one = taker(site, inbox, table)
    one.turn()
    assert isinstance(one.taken.error, LabelError)
    assert inbox.count() == 2
    table.write_text("accession,label,source,version\nACC000000,1,reader,1\nACC000001,0,reader,1\n")
    assert taker(site, Inbox.of(site), table).turn() == 1
    assert images(site) == 2


def test_a_stop_between_two_files_loses_nothing(tmp_path: Path) -> None:
    """Asked to end in the middle of an ingestion, it does; the next start takes the batch as it was."""
    site = new_site(tmp_path / "site")
    inbox = filled(site, study(0, 6))
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) > 3

    Taker(site, inbox, Taking(10.0, None, 1), stopping).turn()
    assert inbox.count() == 6
    assert images(site) == 0
    assert taker(site, Inbox.of(site)).turn() == 1
    assert images(site) == 6
    assert inbox.count() == 0


def test_one_takes_at_a_time(tmp_path: Path) -> None:
    """A second taker is refused by name; after the first has ended, it is not."""
    inbox = Inbox.of(new_site(tmp_path / "site"))
    with alone(inbox), pytest.raises(StorageError, match="another listener"), alone(inbox):
        pass
    with alone(inbox):
        pass
