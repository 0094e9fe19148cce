"""Folders made to harm, files that change under the reader, and how much of the machine one file can take."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import socket
import struct
import time
import zipfile
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.pixels import compress
from pydicom.uid import RLELossless

from client.deid.pseudonyms import Pseudonyms
from client.index import Index
from client.intake.folder import list_files
from client.intake.ingest import ingest
from client.intake.outcome import Task
from client.intake.pool import MEMORY_BYTES, Limits, Pool, Setup
from tests.client.acceptance.case import Canary
from tests.client.acceptance.objects import unknown_coding
from tests.client.intake_files import export, image, label_table, new_site, to_bytes, when_read
from tests.client.test_intake_hostile import deep_sequences, deflate_bomb, rle_lie

SETUP = Setup(Pseudonyms(b"k" * 32, b"s" * 32))
SLACK = 64 << 20
"""What a worker may grow between the measure of its start and its limit, in bytes."""


def codes(site, folder: Path) -> dict[str, str]:
    """Code of every file, by name."""
    names = Pseudonyms.of(site)
    with Index(site.index) as index:
        listed = (file for file in list_files(folder, None, None) if file.refusal is None)
        found = {file.relative: index.file_outcome(file.key(names)) for file in listed}
    return {name: outcome.code for name, outcome in found.items() if outcome is not None}


def test_pipes_devices_and_sockets_do_not_hang_and_are_named(tmp_path):
    folder = export(tmp_path / "in", 2)
    os.mkfifo(folder / "pipe.dcm")
    (folder / "zero.dcm").symlink_to("/dev/zero")
    (folder / "gone.dcm").symlink_to(folder / "nowhere.dcm")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(folder / "door.dcm"))
        started = time.monotonic()
        report = ingest(new_site(tmp_path / "site"), folder, None, workers=1)
    assert time.monotonic() - started < 60
    assert report.accepted == 2
    assert report.refused == {"file-special": 3, "file-outside": 1}


def test_a_link_out_of_the_folder_is_not_opened(tmp_path):
    """Not even to keep a copy of what it leads to: it may be the site's own key."""
    site = new_site(tmp_path / "site")
    folder = export(tmp_path / "in", 1)
    other = export(tmp_path / "other", 1, 50)
    (folder / "key.dcm").symlink_to(next((site.folder / "secrets").glob("pseudonym.key")))
    (folder / "other.dcm").symlink_to(next(other.iterdir()))
    (folder / "climbing.dcm").symlink_to(Path("..") / "other" / next(other.iterdir()).name)
    (folder / "whole").symlink_to(other)
    report = ingest(site, folder, None, workers=1)
    assert report.accepted == 1
    assert report.refused == {"file-outside": 3}
    held = [p for p in site.quarantine.rglob("*") if p.is_file() and p.suffix != ".json"]
    assert all(site.pseudonym_key not in path.read_bytes() for path in held)
    assert not [p for p in held if p.stat().st_size > 4096]


def test_a_link_inside_the_folder_is_the_same_file_once_more(tmp_path):
    folder = export(tmp_path / "in", 1)
    (folder / "twin.dcm").symlink_to(next(folder.iterdir()))
    report = ingest(new_site(tmp_path / "site"), folder, None, workers=1)
    assert (report.accepted, report.unchanged) == (1, 1)


def test_a_name_that_is_not_text_stops_nobody(tmp_path):
    """Latin-1 bytes, a line break and a control character in names, with a table of labels."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines = []
    for number, name in enumerate((b"M\xfcller.dcm", b"a\nb.dcm", b"c\x1b[31m.dcm", b"\xff\xfe.png")):
        (folder / os.fsdecode(name)).write_bytes(to_bytes(image(number)))
        if not name.endswith(b"png"):
            lines.append(f"ACC{number:06d},{number % 2},me,1")
    site = new_site(tmp_path / "site")
    report = ingest(site, folder, label_table(tmp_path / "labels.csv", lines), workers=1)
    assert report.accepted == 3
    assert report.refused == {"not-an-image": 1}


def test_small_and_packed_files_are_refused_by_name(tmp_path):
    folder = export(tmp_path / "in", 1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../../evil.dcm", to_bytes(image(9)))
    wrong = {"none": b"", "three": b"abc", "132": bytes(132), "gzip": gzip.compress(to_bytes(image(8)))}
    for name, data in {**wrong, "zip": packed.getvalue()}.items():
        (folder / f"{name}.dcm").write_bytes(data)
    report = ingest(new_site(tmp_path / "site"), folder, None, workers=1)
    assert report.accepted == 1
    assert report.refused == {"not-dicom": 5}
    assert not list(tmp_path.rglob("evil*"))


def test_a_file_that_vanishes_is_unreadable_and_one_that_changes_is_what_was_read(tmp_path):
    folder = export(tmp_path / "in", 4)
    paths = sorted(folder.iterdir())

    def meddle(done: int, _total: int) -> None:
        if done == 1:
            paths[2].unlink()
            paths[3].write_bytes(to_bytes(image(77)))

    site = new_site(tmp_path / "site")
    report = ingest(site, folder, None, workers=1, progress=meddle)
    assert report.refused == {"file-unreadable": 1}
    assert report.accepted == 3
    again = ingest(site, folder, None, workers=1)
    assert (again.received, again.unchanged) == (3, 3)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_file_on_which_the_worker_dies_costs_that_file_only(tmp_path, how):
    """The worker hangs in a pipe when it dies, as it would in a decoder."""
    folder, staging = export(tmp_path / "in", 3), tmp_path / "staging"
    os.mkfifo(folder / "Abendroth_1b.dcm")
    staging.mkdir()
    todo = [Task(n, str(p), f"{n:032x}", str(staging)) for n, p in enumerate(sorted(folder.iterdir()))]
    with Pool(SETUP, 1) as pool:
        when_read(folder / "Abendroth_1b.dcm", lambda: os.kill(pool.pids[0], how))
        found = [outcome.code for _, outcome in pool.run(todo)]
    assert found == ["accepted", "accepted", "parser-crash", "accepted"]


def test_no_worker_grows_past_its_limit_whatever_it_reads(tmp_path):
    """Bombs, lies and depth, one after the other in one process; its peak as the kernel saw it."""
    folder, staging = export(tmp_path / "in", 1), tmp_path / "staging"
    staging.mkdir()
    nasty = [
        deflate_bomb(300),
        deep_sequences(5000),
        rle_lie(),
        *map(frame_lie, ("4000", "100000", "-3", "many")),
    ]
    for number, data in enumerate(nasty):
        (folder / f"Nasty_{number}.dcm").write_bytes(data)
    todo = [Task(n, str(p), f"{n:032x}", str(staging)) for n, p in enumerate(sorted(folder.iterdir()))]
    with Pool(SETUP, 1) as pool:
        found = []
        for task, outcome in pool.run(todo):
            found.append(outcome.code)
            if task.number == 0:
                start, worker = size(pool.pids[0], "VmSize"), pool.pids[0]
        assert pool.pids[0] == worker  # none of them ended it
        limit = re.search(r"Max address space\s+(\d+)", Path(f"/proc/{worker}/limits").read_text())
        assert limit is not None
        assert size(worker, "VmPeak") <= int(limit[1]) <= start + MEMORY_BYTES + SLACK
    assert found[0] == "accepted"
    assert set(found[1:]) <= {"deflate-bomb", "parser-limit", "pixel-size", "pixel-truncated", "pixel-bits"}


def size(pid: int, what: str) -> int:
    """A line of the kernel's account of a process, in bytes."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def frame_lie(frames: str) -> bytes:
    """One small compressed frame that says it is many."""
    ds = dcmread(io.BytesIO(to_bytes(image(3))))
    compress(ds, RLELossless, generate_instance_uid=False)
    data = to_bytes(ds, RLELossless)
    text = frames.encode() + b" " * (len(frames) % 2)
    element = struct.pack("<HH2sH", 0x0028, 0x0008, b"IS", len(text)) + text
    at = data.index(struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2))
    return data[:at] + element + data[at:]


def test_every_cut_of_a_header_has_an_outcome_by_name(tmp_path):
    """An element that ends too early is never half a value."""
    whole, folder = to_bytes(image(5)), tmp_path / "in"
    folder.mkdir()
    for end in range(133, 1400, 29):
        (folder / f"{end}.dcm").write_bytes(whole[:end])
    report = ingest(new_site(tmp_path / "site"), folder, None, workers=1)
    assert report.accepted == 0
    assert report.refused.keys() <= {
        "sop-class-missing",
        "sop-class-other",
        "parser-error",
        "pixel-missing",
        "pixel-truncated",
        "not-dicom",
    }


def test_jpeg_xl_is_refused_by_name(tmp_path):
    folder = export(tmp_path / "in", 1)
    for number in (110, 111, 112):
        data = unknown_coding(f"1.2.840.10008.1.2.4.{number}")(Canary(number))
        (folder / f"xl{number}.dcm").write_bytes(data)
    site = new_site(tmp_path / "site")
    report = ingest(site, folder, None, workers=1)
    assert report.refused == {"transfer-syntax": 3}
    assert report.accepted == 1


def test_a_bomb_beside_honest_files_in_a_whole_ingestion(tmp_path):
    folder = export(tmp_path / "in", 2)
    (folder / "Bomb.dcm").write_bytes(deflate_bomb(300))
    os.mkfifo(folder / "hangs")
    site = new_site(tmp_path / "site")
    report = ingest(site, folder, None, workers=1, limits=Limits(time_s=30.0))
    assert report.accepted == 2
    assert report.refused == {"deflate-bomb": 1, "file-special": 1}
    assert set(codes(site, folder).values()) == {"accepted", "deflate-bomb"}
