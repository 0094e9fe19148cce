"""A log that shows when somebody touched it."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.audit import EMPTY, AuditLog, Head, read, verify
from common.errors import StorageError


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(5):
        log.append("round.completed", round=number, site="alpha")
    return tmp_path / "audit.jsonl"


def _rewrite(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


def test_a_whole_log_verifies_and_gives_its_head(log):
    head = verify(log)
    assert head.count == 5
    assert head == AuditLog(log).head()
    assert [entry["fields"]["round"] for entry in read(log)] == [0, 1, 2, 3, 4]


def test_a_log_that_does_not_exist_yet_is_empty(tmp_path):
    assert verify(tmp_path / "none.jsonl") == EMPTY == AuditLog(tmp_path / "none.jsonl").head()


def _edited(lines):
    entry = json.loads(lines[2])
    entry["fields"]["site"] = "beta"
    return [*lines[:2], json.dumps(entry, sort_keys=True).encode() + b"\n", *lines[3:]]


def _forged(lines):
    """Edited by someone who knows how a line's own hash is made."""
    entry = json.loads(_edited(lines)[2])
    rest = {key: value for key, value in entry.items() if key != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    entry["hash"] = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return [*lines[:2], json.dumps(entry, sort_keys=True).encode() + b"\n", *lines[3:]]


@pytest.mark.parametrize(
    "change",
    [
        _edited,
        _forged,
        lambda lines: lines[:2] + lines[3:],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, b"not json\n"],
        lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")],
    ],
    ids=["edited", "forged", "deleted", "reordered", "repeated", "foreign", "torn"],
)
def test_what_was_done_to_a_log_is_found(log, change):
    _rewrite(log, change)
    with pytest.raises(StorageError) as caught:
        verify(log)
    assert caught.value.code == "audit-broken"


def test_a_log_cut_at_its_end_is_whole_by_itself_and_short_against_a_known_head(log):
    known = verify(log)
    _rewrite(log, lambda lines: lines[:3])
    assert verify(log).count == 3
    with pytest.raises(StorageError) as caught:
        verify(log, known)
    assert caught.value.code == "audit-truncated"


def test_a_log_made_anew_does_not_pass_for_the_one_that_was_known(log, tmp_path):
    known = verify(log)
    other = AuditLog(tmp_path / "other.jsonl")
    for number in range(9):
        other.append("round.completed", round=number)
    with pytest.raises(StorageError):
        verify(tmp_path / "other.jsonl", known)
    assert verify(log, Head(known.count, known.digest)) == known


def test_a_line_torn_by_a_crash_is_cut_off_and_noted(log):
    _rewrite(log, lambda lines: [*lines, lines[-1][:40]])
    AuditLog(log).append("run.ended", status="completed")
    assert verify(log).count == 7
    assert [entry["event"] for entry in read(log)][-2:] == ["audit.torn", "run.ended"]


def test_nothing_a_log_may_not_say_gets_into_the_chain(tmp_path):
    path = tmp_path / "a.jsonl"
    AuditLog(path).append("x", site="Müller, Anna", patient_name="Anna", round=3)
    text = path.read_text()
    assert "Anna" not in text
    assert next(read(path))["fields"] == {"site": "refused", "patient_name": "refused", "round": 3}


def test_many_writers_make_one_chain(tmp_path):
    path = tmp_path / "a.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: AuditLog(path).append("x", round=n), range(60)))
    assert verify(path).count == 60


def test_a_long_line_is_read_back_whole_when_the_next_is_added(tmp_path):
    path = tmp_path / "a.jsonl"
    AuditLog(path).append("x", **{f"field{n}": "v" for n in range(2000)})
    AuditLog(path).append("y")
    assert verify(path).count == 2


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        AuditLog(tmp_path / "file" / "a.jsonl").append("x")
