"""Processes that are kept running: real ones, ended in every way that processes end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import FederationError
from common.leftovers import end_leftovers
from common.spoken import is_ours
from common.supervisor import Program, Supervisor

SLEEPS = "import time; time.sleep(600)"
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
SUPERVISES = """
import sys
from pathlib import Path
from common.supervisor import Program, Supervisor
folder = Path(sys.argv[1])
kept = Supervisor([Program("one", (sys.executable, "-c", sys.argv[2]), folder)], folder)
kept.run(lambda: True)
"""


def _python(name: str, code: str, folder: Path, **options) -> Program:
    return Program(name, (sys.executable, "-c", code), folder, **options)


def _until(kept: Supervisor, true, seconds: float = 60.0) -> None:
    """Tick until something is true."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds
        kept.tick()
        time.sleep(0.02)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def supervise(tmp_path):
    """Makes supervisors that are stopped again."""
    made: list[Supervisor] = []

    def make(*programs, **options) -> Supervisor:
        made.append(Supervisor(programs, tmp_path, **options))
        return made[-1]

    yield make
    for kept in made:
        kept.stop()


def test_a_program_that_is_killed_is_started_again_at_once(supervise, tmp_path):
    told = []
    kept = supervise(_python("one", SLEEPS, tmp_path), ended=lambda *what: told.append(what))
    _until(kept, lambda: kept.pid("one"))
    first = kept.pid("one")
    os.kill(first, signal.SIGKILL)
    _until(kept, lambda: kept.pid("one") not in (None, first))
    assert told == [("one", -signal.SIGKILL)]
    assert kept.starts("one") == 2


def test_what_a_killed_program_left_behind_is_ended_before_it_starts_again(supervise, tmp_path):
    """An orphan that works on beside its successor would be a second writer."""
    kept = supervise(_python("one", PARENT, tmp_path))
    log = tmp_path / "one.log"
    _until(kept, lambda: log.exists() and log.read_bytes().endswith(b"\n"))
    child = int(log.read_text())
    os.kill(kept.pid("one"), signal.SIGKILL)
    _until(kept, lambda: kept.starts("one") == 2)
    _until(kept, lambda: _gone(child))


def test_programs_of_a_group_share_their_fate_and_others_do_not(supervise, tmp_path):
    names = {"node": "courier", "executor": "courier", "service": ""}
    kept = supervise(*[_python(n, SLEEPS, tmp_path, group=g) for n, g in names.items()])
    _until(kept, lambda: all(kept.pid(name) for name in names))
    before = {name: kept.pid(name) for name in names}
    os.kill(before["executor"], signal.SIGKILL)
    _until(kept, lambda: kept.starts("node") == kept.starts("executor") == 2)
    assert kept.pid("service") == before["service"]
    assert _gone(before["node"])


def test_a_program_that_never_stays_up_is_tried_less_and_less_and_never_given_up(supervise, tmp_path):
    kept = supervise(_python("one", "raise SystemExit(3)", tmp_path))
    _until(kept, lambda: kept.starts("one") == 4)
    at = [time.monotonic()]
    for count in (5, 6):
        _until(kept, lambda count=count: kept.starts("one") >= count)
        at.append(time.monotonic())
    assert at[2] - at[1] > at[1] - at[0] > 0.5
    status = json.loads((tmp_path / "status.json").read_text())["programs"]["one"]
    assert status["exit_status"] == 3
    assert status["starts"] >= 5


def test_one_that_needs_another_waits_until_that_is_ready(supervise, tmp_path):
    sign = tmp_path / "ready"
    kept = supervise(
        _python("first", SLEEPS, tmp_path, ready=sign.exists),
        _python("second", SLEEPS, tmp_path, needs=("first",)),
    )
    _until(kept, lambda: kept.pid("first"))
    for _ in range(10):
        kept.tick()
    assert kept.pid("second") is None
    sign.touch()
    _until(kept, lambda: kept.pid("second"))


def test_a_program_that_cannot_be_started_at_all_does_not_end_the_others(supervise, tmp_path):
    kept = supervise(Program("none", ("/nowhere/at-all",), tmp_path), _python("one", SLEEPS, tmp_path))
    _until(kept, lambda: kept.pid("one"))
    assert kept.pid("none") is None


def test_one_that_stands_still_is_ended_and_started_again(supervise, tmp_path):
    """A thread of its own cannot see that: a whole process may stand still, stopped or in a library that lets nobody else in."""

    def alive():
        pid = kept.pid("one")
        return pid is not None and Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "T"

    kept = supervise(_python("one", SLEEPS, tmp_path, ready=alive, silent_s=1.0))
    _until(kept, lambda: kept.pid("one"))
    first = kept.pid("one")
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        kept.tick()
        time.sleep(0.1)
    assert kept.pid("one") == first, "it does its work"
    os.kill(first, signal.SIGSTOP)
    _until(kept, lambda: kept.pid("one") not in (None, first))
    assert _gone(first)


def test_one_that_was_never_ready_is_still_starting(supervise, tmp_path):
    kept = supervise(_python("one", SLEEPS, tmp_path, ready=lambda: False, silent_s=0.2))
    _until(kept, lambda: kept.pid("one"))
    first, began = kept.pid("one"), time.monotonic()
    while time.monotonic() - began < 1.5:
        kept.tick()
        time.sleep(0.05)
    assert kept.pid("one") == first


def test_a_stop_ends_everything_even_what_will_not_listen(supervise, tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    kept = Supervisor([_python("one", PARENT, tmp_path), _python("deaf", deaf, tmp_path)], tmp_path)
    logs = [tmp_path / "one.log", tmp_path / "deaf.log"]
    _until(kept, lambda: all(log.exists() and log.read_bytes() for log in logs))
    pids = [kept.pid("one"), kept.pid("deaf"), int(logs[0].read_text())]
    kept.stop()
    assert all(_gone(pid) for pid in pids)
    status = json.loads((tmp_path / "status.json").read_text())["programs"]
    assert {program["state"] for program in status.values()} == {"stopped"}


def test_two_supervisors_never_share_a_folder(supervise, tmp_path):
    supervise(_python("one", SLEEPS, tmp_path))
    with pytest.raises(FederationError) as caught:
        Supervisor([], tmp_path)
    assert caught.value.code == "running"


def test_when_the_supervisor_is_killed_its_programs_end_and_so_does_what_they_started(tmp_path):
    """Linux ends the programs; a worker of theirs that still holds a port is ended by the next supervisor."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISES, str(tmp_path), PARENT])
    try:
        log, status = tmp_path / "one.log", tmp_path / "status.json"
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_bytes().endswith(b"\n") and status.exists()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        said = log.stat().st_mtime
        while (
            status.stat().st_mtime <= said + 0.1
        ):  # the status is kept fresh, so that it is later than the child
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    pid = json.loads(status.read_text())["programs"]["one"]["pid"]
    deadline = time.monotonic() + 60
    while not _gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int(log.read_text())
    assert not _gone(child)
    Supervisor([], tmp_path).stop()
    while not _gone(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nobody_who_came_after_the_last_status_is_taken_for_a_leftover(tmp_path):
    status = tmp_path / "status.json"
    with subprocess.Popen([sys.executable, "-c", SLEEPS], start_new_session=True) as other:
        status.write_text(json.dumps({"programs": {"one": {"pid": other.pid}}}))
        os.utime(status, (time.time() - 3600, time.time() - 3600))
        assert end_leftovers(status) == []
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"programs": {"one": {"pid": "x"}}}', '{"programs": [1]}'])
def test_a_status_that_says_nothing_ends_nobody(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    assert end_leftovers(tmp_path / "status.json") == []


def test_of_a_program_that_sees_patients_only_our_own_log_lines_are_kept(supervise, tmp_path):
    says = (
        "import logging, sys\n"
        "from common.logs import Log, configure\n"
        "configure('INFO')\n"
        "Log('client.test').info('round.done', round=3)\n"
        "print('cannot read /pacs/Anna_Muster.dcm', flush=True)\n"
        "raise ValueError('Anna Muster')\n"
    )
    root = Path(__file__).resolve().parents[2]
    kept = supervise(_python("one", says, root, sees_patients=True, environment={"PYTHONPATH": str(root)}))
    log = tmp_path / "one.log"
    _until(kept, lambda: kept.starts("one") >= 2 and log.exists())
    said = log.read_text()
    assert "round.done" in said
    assert "withheld" in said
    assert "Anna" not in said


@pytest.mark.parametrize(
    "line",
    [
        b"Anna Muster",
        b'{"event": "Anna Muster"}',
        b'{"event": "file.read", "path": "/pacs/1"}',
        b'{"event": "file.read", "exception": "cannot read /pacs/Anna"}',
        b'{"event": "file.read", "site": "Anna Muster"}',
        b"[1]",
        b"null",
        b'"x"',
        b"\xff\xfe",
    ],
)
def test_a_line_with_anything_else_in_it_is_not_ours(line):
    assert not is_ours(line)
