"""A data set on its way to the disk: too large, no room, a broken head; it is read to its end and dropped."""

from __future__ import annotations

from pathlib import Path

from client.deid.pseudonyms import Pseudonyms
from client.pacs.inbox import Inbox
from client.pacs.spool import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Spool

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)


def inbox_in(folder: Path, floor: int = 0) -> Inbox:
    """An inbox of its own."""
    return Inbox(folder / "inbox", NAMES, floor)


def drafts(inbox: Inbox) -> list[Path]:
    """Half instances."""
    return list((inbox.folder / ".incoming").iterdir())


def test_it_holds_nothing_in_memory(tmp_path: Path) -> None:
    """Head and pieces are in the draft; the buffer it poses as is empty."""
    told: list[str] = []
    spool = Spool(inbox_in(tmp_path), lambda: b"head", told.append)
    assert spool.write(b"one") == 3
    spool.write(b"two")
    assert spool.draft is not None
    assert spool.draft.path.read_bytes() == b"headonetwo"
    assert (spool.offset, spool.received, spool.status, told) == (4, 6, SUCCESS, [])
    assert spool.getvalue() == b""
    spool.drop()


def test_one_that_is_too_large_is_dropped_and_read_on(tmp_path: Path) -> None:
    """Refused for good and told once, however much follows; nothing of it stays on the disk."""
    told: list[str] = []
    inbox = inbox_in(tmp_path)
    spool = Spool(inbox, lambda: b"head", told.append, limit=10)
    for _ in range(5):
        spool.write(b"x" * 6)
    assert (spool.status, spool.draft, told) == (CANNOT_UNDERSTAND, None, ["too-large"])
    assert drafts(inbox) == []


def test_without_room_nothing_is_written(tmp_path: Path) -> None:
    """Refused for now, before the first byte."""
    told: list[str] = []
    inbox = inbox_in(tmp_path, floor=2**62)
    spool = Spool(inbox, lambda: b"head", told.append)
    spool.write(b"x" * 6)
    spool.write(b"x" * 6)
    assert (spool.status, spool.draft, told) == (OUT_OF_RESOURCES, None, ["disk-floor"])
    assert drafts(inbox) == []


def test_the_floor_is_watched_while_an_instance_comes(tmp_path: Path) -> None:
    """Space that goes while a large instance is written ends it before the disk is full."""
    told: list[str] = []
    inbox = inbox_in(tmp_path)
    spool = Spool(inbox, lambda: b"head", told.append)
    spool.write(b"x" * 2**23)
    inbox._floor = 2**62
    spool.write(b"x" * (2**23 - 1))
    assert spool.status == SUCCESS
    spool.write(b"x")
    assert (spool.status, told) == (OUT_OF_RESOURCES, ["disk-floor"])
    assert drafts(inbox) == []


def test_a_command_set_that_lacks_what_a_file_needs_is_refused(tmp_path: Path) -> None:
    """The association lives; the instance is not understood."""

    def broken() -> bytes:
        raise AttributeError("AffectedSOPClassUID")

    told: list[str] = []
    inbox = inbox_in(tmp_path)
    spool = Spool(inbox, broken, told.append)
    spool.write(b"x")
    assert (spool.status, spool.draft, told) == (CANNOT_UNDERSTAND, None, ["command"])
    assert drafts(inbox) == []
