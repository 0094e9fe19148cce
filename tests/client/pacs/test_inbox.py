"""The inbox loses nothing that it acknowledged, keeps one of each, and tells no name."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from client.deid.pseudonyms import Pseudonyms
from client.pacs.inbox import BACKLOG, DISK, Inbox

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)


def inbox_in(folder: Path, **limits: int) -> Inbox:
    """An inbox of its own."""
    return Inbox(folder / "inbox", NAMES, **limits)


def put(inbox: Inbox, study: str, instance: str, content: bytes = b"x") -> bool:
    """One instance."""
    draft = inbox.draft()
    draft.write(content)
    return inbox.keep(draft, study, instance)


def files(inbox: Inbox) -> list[Path]:
    """All that is in it, hidden or not."""
    return sorted(path for path in inbox.folder.rglob("*") if path.is_file())


def age(inbox: Inbox, seconds: float) -> None:
    """Let everything be older."""
    for path in inbox.folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_the_same_twice_is_one_file_and_another_content_is_another(tmp_path: Path) -> None:
    """A sender repeats itself, or corrects itself under the same SOP instance UID: nothing is lost."""
    inbox = inbox_in(tmp_path)
    assert put(inbox, "1.2", "1.2.3", b"first")
    assert not put(inbox, "1.2", "1.2.3", b"first")
    assert put(inbox, "1.2", "1.2.3", b"second")
    assert {path.read_bytes() for path in files(inbox)} == {b"first", b"second"}
    assert inbox.count() == 2


def test_no_path_tells_a_uid_and_only_the_owner_reads(tmp_path: Path) -> None:
    """Folders and files are keyed codes with rights for the owner alone."""
    inbox = inbox_in(tmp_path)
    put(inbox, "1.2.840.99", "1.2.840.99.7")
    for path in inbox.folder.rglob("*"):
        assert "1.2.840" not in str(path.relative_to(inbox.folder))
        assert path.stat().st_mode & 0o077 == 0
    assert inbox.folder.stat().st_mode & 0o077 == 0


def test_a_hostile_uid_is_no_path(tmp_path: Path) -> None:
    """Slashes, dots and nulls in UIDs stay inside the inbox."""
    inbox = inbox_in(tmp_path)
    put(inbox, "../../../etc", "../../x\0y/..")
    assert len(files(inbox)) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and inbox.folder not in path.parents]


def test_what_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    """A draft that is dropped or forgotten is gone."""
    inbox = inbox_in(tmp_path)
    draft = inbox.draft()
    draft.write(b"half")
    draft.discard()
    draft.discard()
    other = inbox.draft()
    other.write(b"half")
    del other
    assert files(inbox) == []


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    """A killed writer's half file goes at the next start; one that another process writes now does not."""
    inbox = inbox_in(tmp_path)
    code = (
        "import sys,time,pathlib;from client.pacs.inbox import Draft;"
        "d=Draft(pathlib.Path(sys.argv[1]));d.write(b'x');print('ready',flush=True);time.sleep(60)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(inbox.folder / ".incoming")], stdout=subprocess.PIPE
    )
    with writer:
        writer.stdout.readline()
        inbox.sweep()
        assert len(files(inbox)) == 1
        writer.kill()
    inbox.sweep()
    assert files(inbox) == []


def test_a_study_is_complete_after_its_quiet_time(tmp_path: Path) -> None:
    """Not before; the same instance again counts as still arriving; the longest waiting come first."""
    inbox = inbox_in(tmp_path)
    put(inbox, "a", "1")
    age(inbox, 100)
    put(inbox, "b", "2")
    age_b = time.time() - 50
    (b,) = inbox.complete(0.0)[1:]
    os.utime(b, (age_b, age_b))
    assert len(inbox.complete(40)) == 2
    assert inbox.complete(40)[1] == b
    assert len(inbox.complete(60)) == 1
    put(inbox, "a", "1")
    assert inbox.complete(60) == []


def test_a_clock_set_back_holds_nothing_for_ever(tmp_path: Path) -> None:
    """A study that seems to come from tomorrow is complete; one from a second ahead is not yet."""
    inbox = inbox_in(tmp_path)
    put(inbox, "a", "1")
    age(inbox, -86_400)
    assert len(inbox.complete(60)) == 1
    age(inbox, -1)
    assert inbox.complete(60) == []


def test_a_taken_study_leaves_when_done_and_late_instances_stay(tmp_path: Path) -> None:
    """What comes while its study is being taken in is a study again, under the same code."""
    inbox = inbox_in(tmp_path)
    put(inbox, "a", "1")
    (study,) = inbox.complete(0)
    batch = inbox.take([study])
    put(inbox, "a", "2")
    assert inbox.count() == 2
    inbox.done(batch)
    assert inbox.count() == 1
    assert inbox.complete(0) == [study]
    assert list((inbox.folder / ".taking").iterdir()) == []


def test_a_file_that_slipped_into_a_taken_study_is_not_removed(tmp_path: Path) -> None:
    """A writer may hold the folder while it is moved; its file was not in the ingestion's hands."""
    inbox = inbox_in(tmp_path)
    put(inbox, "a", "1")
    batch = inbox.take(inbox.complete(0))
    slipped = batch.files[0].with_name("late.dcm")
    slipped.write_bytes(b"late")
    inbox.done(batch)
    assert slipped.read_bytes() == b"late"
    (left,) = inbox.taken()
    assert left.files == (slipped,)


def test_batches_outlive_a_crash(tmp_path: Path) -> None:
    """A new process finds what the old one had in hand; an empty leftover goes."""
    inbox = inbox_in(tmp_path)
    put(inbox, "a", "1")
    put(inbox, "b", "2")
    taken = inbox.take(inbox.complete(0))
    (inbox.folder / ".taking" / "empty").mkdir()
    (found,) = inbox_in(tmp_path).taken()
    assert found == taken
    assert found.studies == 2
    parts = inbox.split(found)
    assert [part.studies for part in parts] == [1, 1]
    assert inbox.count() == 2
    assert len(list((inbox.folder / ".taking").iterdir())) == 2


def test_there_is_a_floor_and_a_backlog(tmp_path: Path) -> None:
    """Each by its own word; room comes back when files leave."""
    assert inbox_in(tmp_path, floor_bytes=2**62).full() == DISK
    inbox = inbox_in(tmp_path, backlog=2)
    assert inbox.full() == ""
    put(inbox, "a", "1")
    put(inbox, "a", "2")
    assert inbox.full() == BACKLOG
    inbox.done(inbox.take(inbox.complete(0)))
    assert inbox.full() == ""


def test_many_threads_and_a_taker_lose_nothing(tmp_path: Path) -> None:
    """Eight writers into the same studies while they are moved away under them: every instance comes out once."""
    inbox = inbox_in(tmp_path)
    seen: list[bytes] = []
    writing = threading.Event()

    def write(number: int) -> None:
        for n in range(40):
            put(inbox, f"study {n % 3}", f"{number}.{n}", f"{number} {n}".encode())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while not writing.is_set():
        if not any(thread.is_alive() for thread in threads):
            writing.set()
        if studies := inbox.complete(0):
            inbox.take(studies)
        for batch in inbox.taken():
            seen += [path.read_bytes() for path in batch.files]
            inbox.done(batch)
    assert sorted(seen) == sorted(f"{number} {n}".encode() for number in range(8) for n in range(40))


@pytest.mark.parametrize("word", ["", "association 7"])
def test_instances_without_a_study_have_a_folder(tmp_path: Path, word: str) -> None:
    """Any word will do as a study."""
    inbox = inbox_in(tmp_path)
    put(inbox, word, "1")
    assert len(inbox.complete(0)) == 1
