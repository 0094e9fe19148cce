"""Many hospitals on one machine: forked processes are the ones they would be, and a machine that is short of memory is left in peace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from common.errors import FederationError, InputError, StorageError
from common.supervisor import Program
from simulations.benchmarks import crowd
from simulations.benchmarks.scale import MARKS, Scale, available, put, scale_table, scaled, spare
from simulations.benchmarks.watch import Peak

FOUND = Scale(50, 10_000, 21.0, (26.0, 25.0, 24.0), Peak(160.0, 90.0), Peak(181.0, 99.0), 5009.0)
LONG_S = 120.0


def test_memory_that_others_need_is_not_taken():
    """Named before the machine is out of it, with what can be done."""
    with pytest.raises(StorageError) as refused:
        spare(left=1000.0, least=2048.0)
    assert refused.value.code == "memory"
    assert "1,000 MiB are left" in str(refused.value)
    spare(left=4096.0, least=2048.0)
    assert 0 < available() < float("inf")


def test_a_machine_with_too_little_is_not_even_begun_on():
    """No process is started where there is no room for it."""
    with pytest.raises(StorageError):
        spare(least=float("inf"))


def test_figures_are_put_between_their_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    begin, end = MARKS[0].format(50, 10_000), MARKS[1]
    other = f"{MARKS[0].format(3, 7)}\nkept\n{end}"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n{other}\n")
    put(FOUND, page)
    put(FOUND, page)
    said = page.read_text()
    assert "old" not in said
    assert "| 50 | 10,000 | 3 | 21 | 25.0 | 160 | 181 | 5,009 |" in said
    assert said.startswith(f"before\n{begin}\n")
    assert said.endswith(f"{end}\nafter\n{other}\n")
    assert scale_table(FOUND).row_count == 1


def test_a_page_without_a_place_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(InputError):
        put(FOUND, page)
    assert page.read_text() == "nothing here"


FORK = """
import os, sys, time
from pathlib import Path
from simulations.benchmarks import crowd
from common.supervisor import Program
folder = Path(sys.argv[1])
program = Program("one", (sys.executable, "-m", "grown", "a", "b"), folder, {"OF_ITS_OWN": "yes"})
sys.path.insert(0, str(folder))
child = crowd.forked(program, folder / "one.log")
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), "OF_ITS_OWN" in os.environ, Path.cwd() == folder)
"""
GROWN = """
import os, sys
def main():
    print(sys.argv[1:], os.environ["OF_ITS_OWN"], os.getcwd(), os.getsid(0) == os.getpid())
    sys.exit(3)
"""


def test_a_forked_process_has_words_folder_environment_and_log_of_its_own(tmp_path):
    (tmp_path / "grown.py").write_text(GROWN)
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG_S,
    )
    assert done.stdout.split() == ["3", "False", "False"]
    assert (tmp_path / "one.log").read_text().strip() == f"['a', 'b'] yes {tmp_path} True"


def test_what_is_no_module_of_python_is_not_forked(tmp_path):
    with pytest.raises(FederationError):
        crowd.forked(Program("one", ("/bin/true",), tmp_path), tmp_path / "one.log")


def test_a_hospital_has_the_three_processes_of_the_world(tmp_path):
    found = crowd.programs(tmp_path / "site-01", "127.0.0.1:1")
    assert [program.name for program in found] == ["service", "node", "executor"]
    assert all(program.command[:2] == (sys.executable, "-m") for program in found)
    again = crowd.programs(tmp_path / "site-01", "127.0.0.1:1")
    assert [program.folder for program in again] == [program.folder for program in found]


def test_a_process_that_ends_is_named_and_the_others_end_with_the_crowd(tmp_path):
    """Nobody measures forty-nine hospitals and writes fifty."""
    log = (tmp_path / "crowd.log").open("wb")
    whole = subprocess.Popen(crowd.command(tmp_path, "127.0.0.1:1", 1), stdout=log, stderr=log)
    try:
        _until(lambda: crowd.lost(tmp_path) is not None, whole)
        assert crowd.lost(tmp_path) == ""
        pids = {child.name: child.pid for child in crowd.children(tmp_path)}
        assert set(pids) == {"service", "node", "executor"}
        os.kill(pids["executor"], signal.SIGKILL)
        _until(lambda: crowd.lost(tmp_path), whole)
        assert crowd.lost(tmp_path) == "executor of site-01 ended with -9"
    finally:
        whole.terminate()
        whole.wait(LONG_S)
        log.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pids["service"], 0)


def _until(there, process):
    ends = time.monotonic() + LONG_S
    while not there():
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.slow
def test_a_study_of_forked_hospitals_comes_to_its_end():
    said: list[str] = []
    found = scaled(3, 1000, 2, said.append)
    assert len(found.rounds) == 2
    assert found.everything > found.superlink.own > 0
    assert len(said) == 1
