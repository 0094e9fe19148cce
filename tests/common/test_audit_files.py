"""A log over many files: closed, gone on with, forgotten after years; and what a forger does to it."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from common.audit import EMPTY, AuditLog, Head, Keeping, read, verify
from common.audit_files import PRUNED, parts
from common.errors import StorageError

SMALL = Keeping(file_bytes=1500)
LATER = datetime.now(UTC) + timedelta(days=7 * 366)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "audit.jsonl"
    for number in range(30):
        AuditLog(path, SMALL).append("round.completed", round=number, site="alpha")
    assert len(parts(path)) > 3
    return path


def _code(path, *known):
    with pytest.raises(StorageError) as caught:
        verify(path, *known)
    return caught.value.code


def forged(lines, first=1, previous=EMPTY.digest):
    """The same entries as a chain without a fault: what a forger with time leaves."""
    out = []
    for number, line in enumerate(lines, start=first):
        entry = {**json.loads(line), "previous": previous, "n": number}
        rest = {key: value for key, value in entry.items() if key != "hash"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        entry["hash"] = previous = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        out.append(json.dumps(entry, sort_keys=True).encode() + b"\n")
    return out


def test_the_chain_goes_on_across_files_and_is_read_in_order(log):
    assert verify(log).count == 30
    assert [entry["fields"]["round"] for entry in read(log)] == list(range(30))
    assert AuditLog(log).head() == verify(log)


def test_a_log_whose_last_file_was_just_closed_goes_on_from_it(log):
    AuditLog(log, Keeping(file_bytes=1)).append("run.ended")
    assert not log.exists()
    assert AuditLog(log).head().count == 31 == verify(log).count
    AuditLog(log, SMALL).append("run.started")
    assert verify(log).count == 32


def test_a_file_is_closed_by_age_too(tmp_path):
    path = tmp_path / "audit.jsonl"
    AuditLog(path, Keeping(file_days=0)).append("run.started")
    assert parts(path) == [tmp_path / "audit-000000001.jsonl"]


def test_a_log_that_ends_by_itself_stays_one_file(tmp_path):
    path = tmp_path / "audit.jsonl"
    for _ in range(40):
        AuditLog(path, None).append("round.completed", round=1)
    assert parts(path) == [path]


def test_many_processes_and_a_rename_between_them_make_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"

    def write():
        for _ in range(20):
            AuditLog(path, Keeping(file_bytes=600)).append("round.completed", round=1)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(path).count == 120


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_file_that_is_missing_is_found(log, which):
    known = AuditLog(log).head()
    parts(log)[which].unlink()
    assert _code(log, known) in {"audit-broken", "audit-truncated"}


def test_files_in_another_order_are_found(log):
    first, second = parts(log)[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert _code(log) == "audit-broken"


def test_an_edit_in_a_closed_file_is_found(log):
    part = parts(log)[1]
    part.write_bytes(part.read_bytes().replace(b'"alpha"', b'"gamma"', 1))
    assert _code(log) == "audit-broken"


def test_a_rewritten_tail_is_whole_by_itself_and_found_with_a_head_that_the_other_side_kept(log):
    known = AuditLog(log).head()
    part, newest = parts(log)[-2:]
    lines = [line for one in (part, newest) for line in one.read_bytes().splitlines(keepends=True)]
    lines[0] = lines[0].replace(b'"alpha"', b'"gamma"')
    start = json.loads(lines[0])
    part.write_bytes(b"".join(forged(lines, start["n"], start["previous"])))
    newest.unlink()
    assert verify(log).count == 30
    assert _code(log, known) == "audit-rewritten"
    AuditLog(log).append("run.ended")
    assert _code(log, known) == "audit-rewritten"


def test_one_bad_head_among_good_ones_is_enough(log):
    good = AuditLog(log).head()
    assert verify(log, good, EMPTY) == good
    assert _code(log, good, Head(good.count, EMPTY.digest)) == "audit-rewritten"
    assert _code(log, good, Head(good.count + 1, good.digest)) == "audit-truncated"


@pytest.mark.parametrize(
    "line",
    [
        {"event": "Anna Müller was here"},
        {"fields": {"site": "Müller, Anna"}},
        {"fields": {"patient_name": "anna"}},
        {"fields": {"anna müller": "refused"}},
        {"fields": {"round": "three"}},
        {"fields": []},
    ],
)
def test_a_line_that_says_what_no_log_may_is_found_though_its_chain_is_whole(tmp_path, line):
    path = tmp_path / "audit.jsonl"
    AuditLog(path).append("run.started", round=1)
    entry = {**json.loads(path.read_text()), **line}
    path.write_bytes(b"".join(forged([json.dumps(entry).encode()])))
    assert _code(path) == "audit-schema"


def test_a_key_that_stands_twice_hides_nothing(log):
    part = parts(log)[0]
    part.write_bytes(part.read_bytes().replace(b'{"event"', b'{"event": "anna", "event"', 1))
    assert _code(log) == "audit-broken"


def test_an_event_that_is_no_word_is_written_as_refused(tmp_path):
    AuditLog(tmp_path / "a.jsonl").append("Anna Müller", **{"Anna Müller": 1})
    assert "Anna" not in (tmp_path / "a.jsonl").read_text()
    assert verify(tmp_path / "a.jsonl").count == 1


def test_years_later_old_files_go_and_the_chain_says_so(log):
    known = AuditLog(log).head()
    lines = known.count
    gone = AuditLog(log, SMALL).forget(years=6, now=LATER)
    assert gone >= 3
    first = next(read(log))
    assert first["n"] > 1
    head = verify(log, known)
    assert head.count == lines + 1
    note = list(read(log))[-1]
    assert (note["event"], note["fields"]["count"]) == (PRUNED, first["n"] - 1)


def test_within_the_years_nothing_goes(log):
    assert AuditLog(log).forget(years=6) == 0
    assert AuditLog(log).forget(years=8, now=LATER) == 0


def test_a_beginning_that_went_without_a_word_is_found(log):
    parts(log)[0].unlink()
    assert _code(log) == "audit-truncated"
    AuditLog(log).append(PRUNED, count=3, digest=EMPTY.digest)
    assert _code(log) == "audit-truncated"


def test_a_log_that_is_not_whole_forgets_nothing(log):
    part = parts(log)[1]
    part.write_bytes(part.read_bytes().replace(b'"alpha"', b'"gamma"', 1))
    before = parts(log)
    with pytest.raises(StorageError):
        AuditLog(log).forget(now=LATER)
    assert parts(log) == before


def test_a_crash_between_the_note_and_the_deletion_leaves_a_whole_log(log):
    """The note is on disk before a file goes; whatever of them is still there is part of the same chain."""
    AuditLog(log, SMALL).forget(now=LATER)
    count = verify(log).count
    assert AuditLog(log, SMALL).forget(now=LATER) <= 1
    assert verify(log).count >= count
