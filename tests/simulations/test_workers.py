"""A federation on several processes: the same bits, the same laws, nothing left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from client import direct
from common.audit import read, verify
from common.checkpoints import load
from common.errors import FederationError
from simulations.benchmarks.planted import fresh, plant, planted_plan
from simulations.grid import InProcessGrid, run_on
from simulations.workers import Hands, WorkerGrid, Workers, run_on_workers

_SITES = 5
_ROUNDS = 2
_CHOSEN = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    plant(folder, _SITES)
    return folder


def _folders(prepared: Path, run: Path) -> list[Path]:
    return [run / f"site-{n:04}" for n in range(1, _SITES + 1)]


def _on_workers(prepared: Path, run: Path, count: int, **more):
    plan = planted_plan(_ROUNDS, _CHOSEN, _SITES)
    hands = Hands(count, partial(fresh, prepared))
    return run_on_workers(_folders(prepared, run), plan, run / "out", hands, **more)


def _here(prepared: Path, run: Path):
    for folder in _folders(prepared, run):
        fresh(prepared, folder)
    return run_on(InProcessGrid(_folders(prepared, run)), planted_plan(_ROUNDS, _CHOSEN, _SITES), run / "out")


def _bits(run: Path) -> dict[str, bytes]:
    arrays = load(run / "out" / "model.safetensors").arrays
    return {name: array.tobytes() for name, array in arrays.items()}


def test_any_number_of_workers_gives_the_bits_of_one_process(prepared, tmp_path):
    here = _here(prepared, tmp_path / "here")
    for count in (1, 2, 3):
        record = _on_workers(prepared, tmp_path / str(count), count)
        assert _bits(tmp_path / str(count)) == _bits(tmp_path / "here")
        assert [one.chosen for one in record.rounds] == [one.chosen for one in here.rounds]
        assert [one.sites for one in record.rounds] == [one.sites for one in here.rounds]
        assert record.sites.keys() == here.sites.keys()


def test_every_hospital_wrote_down_what_left_it_and_paid_in_its_ledger(prepared, tmp_path):
    record = _on_workers(prepared, tmp_path, 2)
    sent = 0
    for folder in _folders(prepared, tmp_path):
        log = folder / "state" / "audit.jsonl"
        assert verify(log).count >= 4
        events = [entry["event"] for entry in read(log)]
        rounds = sum(folder.name in one.sites for one in record.rounds)
        assert events.count("ledger.charged") == rounds
        sent += sum(e["fields"]["bytes"] for e in read(log) if e["fields"].get("kind") == "update")
    assert sent == sum(one.bytes_up for one in record.rounds)


def test_who_is_away_is_missed_in_that_round_only(prepared, tmp_path):
    steps = []
    record = run_on_workers(
        _folders(prepared, tmp_path),
        planted_plan(_ROUNDS, _SITES, _SITES),
        tmp_path / "out",
        Hands(2, partial(fresh, prepared)),
        progress=lambda *step: steps.append(step),
        away={"site-0002": (1,)},
    )
    assert [one.refused for one in record.rounds] == [{"site-0002": "no-reply"}, {}]
    assert record.subset
    assert sorted(site for step, site in steps if step == 1) == [
        f"site-{n:04}" for n in range(1, _SITES + 1) if n != 2
    ]


def test_a_worker_that_is_killed_ends_the_run_by_name_and_leaves_nobody(prepared, tmp_path):
    with Workers(2, partial(fresh, prepared)) as workers:
        grid = WorkerGrid(_folders(prepared, tmp_path), workers)
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(FederationError) as raised:
            run_on(grid, planted_plan(_ROUNDS, _SITES, _SITES), tmp_path / "out")
        pids = workers.pids
    assert raised.value.code == "worker-lost"
    assert not any(_lives(pid) for pid in pids)


def test_workers_that_waited_are_gone_when_the_block_ends():
    with Workers(2) as workers:
        pids = workers.pids
        assert len(set(pids)) == 2
    assert not any(_lives(pid) for pid in pids)


def test_a_process_keeps_the_services_of_few_hospitals_only(prepared, tmp_path):
    folders = [tmp_path / f"run-{n}" / "site-0001" for n in range(direct.KEPT + 10)]
    for folder in folders:
        fresh(prepared, folder)
        direct.find(folder)
    first, last = direct.find(folders[0]), direct.find(folders[-1])
    assert first.site.folder == folders[0].resolve()
    assert direct.find(folders[-1]) is last
    assert direct.kept() == direct.KEPT


def _lives(pid: int) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


_STARTER = """
import os, signal, sys, threading
from simulations.workers import Workers
if sys.argv[1] == "aside":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with Workers(2) as workers:
    print(*workers.pids, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("where", ["here", "aside"])
def test_workers_end_with_their_starter_however_it_ends_and_wherever_they_were_forked_from(where):
    """A process that nobody sends work to any more would stay until the machine is switched off."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, "-c", _STARTER, where]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as starter:
        pids = starter.stdout.readline().split()
        ends = [os.pidfd_open(int(pid)) for pid in pids]
        starter.stdin.close()
        assert starter.wait(60) == -signal.SIGKILL
    try:
        for end in ends:
            assert select.select([end], [], [], 60)[0], "a worker is still there"
    finally:
        for end in ends:
            os.close(end)


_CHOICE = """
import threading
from simulations.forks import chosen, is_here
print(is_here(chosen()))
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(is_here(chosen()))
"""


def test_a_process_with_one_thread_is_forked_itself_and_one_with_two_is_not():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _CHOICE], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["True", "False"]
