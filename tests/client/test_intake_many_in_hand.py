"""Several small files in a worker's hands at once: still each has its own time, its own end and its own note."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from client.deid.pseudonyms import Identity, Pseudonyms
from client.index import Index
from client.intake.folder import list_files
from client.intake.outcome import ACCEPTED, Outcome, Task, outcome_from, to_json
from client.intake.pool import Limits, Pool, Setup
from client.intake.process import Desk, Effort, process
from client.intake.staging import NOTES, Staging, forget, notes
from client.intake.stamp import Stamp
from tests.client.intake_files import export, new_site, when_read

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)
SMALL = Stamp(0, 0, 20_000, 0, 0)
"""Of no file that is here: each is hashed again, and no digest is asked for."""
LARGE = SMALL._replace(size=9 * 2**20)
PIPE = 5
"""Which of the files is a pipe: reading it never ends."""


def tasks(tmp_path: Path, stamp: Stamp | None, *, pipe: bool = True) -> list[Task]:
    folder, staging = export(tmp_path / "in", 14), tmp_path / "staging"
    staging.mkdir()
    paths = sorted(folder.iterdir())
    if pipe:
        paths[PIPE].unlink()
        os.mkfifo(paths[PIPE])
    return [Task(n, str(path), f"{n:032x}", str(staging), stamp=stamp) for n, path in enumerate(paths)]


def most_in_hand(pool: Pool) -> int:
    return max(len(hand.tasks) for hand in pool._hands)


def test_one_that_hangs_costs_itself_only(tmp_path):
    """Those before it were answered and those behind it were not begun, though all lay in the same hands."""
    todo = tasks(tmp_path, SMALL)
    with Pool(Setup(NAMES, limits=Limits(time_s=8.0)), 1) as pool:
        answers, most = [], 0
        for answer in pool.answers(todo):
            answers.append(answer)
            most = max(most, most_in_hand(pool))
    assert [answer.task.number for answer in answers] == list(range(len(todo)))
    codes = [answer.outcome.code for answer in answers]
    assert codes[PIPE] == "parser-limit"
    assert {*codes[:PIPE], *codes[PIPE + 1 :]} == {ACCEPTED}
    assert most > 4
    assert [bool(answer.line) for answer in answers] == [n != PIPE for n in range(len(todo))]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_kills_its_worker_costs_itself_only(tmp_path, workers):
    todo = tasks(tmp_path, SMALL)
    codes: dict[int, str] = {}
    with Pool(Setup(NAMES), workers) as pool:
        when_read(Path(todo[PIPE].path), lambda: end_who_reads(pool, PIPE))
        for task, outcome in pool.run(todo):
            codes[task.number] = outcome.code
    assert codes.pop(PIPE) == "parser-crash"
    assert set(codes.values()) == {ACCEPTED}
    assert len(codes) == len(todo) - 1


def end_who_reads(pool: Pool, number: int) -> None:
    """Kill the worker that the file of this number was given to."""
    for hand in pool._hands:
        if any(task.number == number for task in hand.tasks):
            os.kill(hand.pid, signal.SIGKILL)


@pytest.mark.parametrize("stamp", [LARGE, None])
def test_behind_a_large_file_or_one_of_unknown_size_only_one_waits(tmp_path, stamp):
    with Pool(Setup(NAMES), 1) as pool:
        most = 0
        for _, outcome in pool.run(tasks(tmp_path, stamp, pipe=False)):
            assert outcome.accepted
            most = max(most, most_in_hand(pool))
    assert most <= 2


def test_the_line_of_a_worker_says_what_its_outcome_says(tmp_path):
    with Pool(Setup(NAMES), 1) as pool:
        for answer in pool.answers(tasks(tmp_path, SMALL, pipe=False)):
            assert outcome_from(answer.line) == answer.outcome
            assert json.loads(answer.line) == json.loads(to_json(answer.outcome))
            assert "\n" not in answer.line


def test_notes_of_an_ingestion_are_those_of_its_outcomes(tmp_path):
    """What a killed ingestion goes on with is what it would have ended with."""
    site = new_site(tmp_path / "site")
    files = list_files(export(tmp_path / "in", 5), None, None)
    with Index(site.index) as index:
        desk = Desk(site, index, Staging(site.data / "staging"), Pseudonyms.of(site))
        done = process(desk, files, Effort(2, Limits(), lambda _done, _all: None))
        desk.staging.close()
    assert notes(site.data / "staging") == {one.key: one.outcome for one in done}


def test_a_patient_who_withdraws_meanwhile_is_in_no_note_and_the_next_notes_are_not_lost(tmp_path):
    """The withdrawal writes the notes anew; who goes on writing must not write into the old ones."""
    staging = Staging(tmp_path / "staging")
    leaving, other = (NAMES.patient(Identity(number)) for number in ("1", "2"))
    said = Outcome(ACCEPTED, patient=leaving)
    staging.keep("a", said)
    staging.keep("b", replace(said, patient=other), to_json(replace(said, patient=other)))
    forget(staging.folder, leaving)
    staging.keep("c", replace(said, patient=other))
    staging.close()
    staging.close()
    assert notes(staging.folder).keys() == {"b", "c"}
    assert leaving not in (staging.folder / NOTES).read_text(encoding="utf-8")
    staging.keep("d", replace(said, patient=other))
    staging.clear()
    assert not staging.folder.exists()
