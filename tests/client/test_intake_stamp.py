"""Bytes are hashed once where the file system says that nothing wrote to them since, and again where it cannot say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from client.deid.deidentify import Deidentifier
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.intake.bench import Bench
from client.intake.folder import Incoming
from client.intake.outcome import Task, task_from, to_json
from client.intake.stamp import SETTLED_S, Stamp, settled, stamp_of
from tests.client.intake_files import image, to_bytes

BENCH = Bench(Deidentifier(built_in(), Pseudonyms(b"k" * 32, b"s" * 32)))
WRONG = "00" * 32


@pytest.fixture
def path(tmp_path) -> Path:
    made = tmp_path / "a.dcm"
    made.write_bytes(to_bytes(image()))
    return made


def _stamp(path: Path) -> Stamp:
    with path.open("rb") as file:
        return stamp_of(file.fileno())


def _code(path: Path, stamp: Stamp | None, digest: str = WRONG) -> str:
    task = Task(0, str(path), "k", str(path.parent), digest=digest, stamp=stamp)
    return BENCH.process(task_from(to_json(task))).code


def test_a_file_whose_stamp_fits_is_not_hashed_again_and_without_one_it_is(path):
    assert _code(path, _stamp(path)) == "accepted"
    assert _code(path, None) == "file-changed"


def test_the_same_bytes_under_another_stamp_are_known_by_their_digest(path):
    file = Incoming(path, path.name, None)
    before, digest = _stamp(path), file.content().digest.hex()
    os.utime(path)
    assert _stamp(path) != before
    assert _code(path, before, digest) == "accepted"
    assert _code(path, before) == "file-changed"


def test_other_bytes_of_the_same_length_with_their_time_set_back_are_seen(path):
    before, held = _stamp(path), path.stat()
    time.sleep(0.02)  # more than a step of the system's clock
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))
    assert (_stamp(path).size, _stamp(path).written_ns) == (before.size, before.written_ns)
    assert _code(path, before) == "file-changed"


def test_a_file_grown_or_put_in_place_of_another_is_seen(path, tmp_path):
    before = _stamp(path)
    with path.open("ab") as file:
        file.write(b"\0\0")
    assert _code(path, before) == "file-changed"
    other = tmp_path / "other"
    other.write_bytes(to_bytes(image()))
    other.replace(path)
    assert _code(path, before) == "file-changed"


def test_only_a_file_left_alone_for_a_while_has_a_stamp_that_counts(path):
    assert Incoming(path, path.name, None).content().stamp is None  # written a moment ago
    now = _stamp(path)
    last = max(now.written_ns, now.changed_ns)
    step = int(SETTLED_S * 1e9)
    assert not settled(now, last + step)
    assert settled(now, last + step + 1)
    assert not settled(now._replace(written_ns=last + 3600 * 10**9), last + step + 1)  # a clock set back


def test_a_file_of_yesterday_has_a_stamp(tmp_path):
    """One that this test did not write: the interpreter's own source of `os`."""
    old = Incoming(Path(os.__file__), "os.py", None)
    assert old.content().stamp == _stamp(old.path)
