"""Workers of a run: results come, errors come last, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from common.errors import FederationError, StorageError
from simulations import crew as crews
from simulations.board import board
from simulations.crew import crew, say

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
"""On a machine that does much else."""


def double(number: int) -> int:
    say("work", number, 10, part=str(number), parts=5)
    return 2 * number


def mark(path: Path) -> str:
    path.touch()
    return path.name


def linger(path: Path) -> str:
    """Long enough for a starter that gets no processor for a while to hear of an error."""
    path.touch()
    time.sleep(0.5)
    return path.name


def fail(path: Path) -> str:
    path.touch()
    raise StorageError("a part", "it is full", "Free it", code="storage-full")


def die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def wait() -> str:
    time.sleep(600)
    return "never"


def test_every_job_gives_its_result() -> None:
    with board() as bars, crew(bars, 2) as hands:
        assert sorted(hands.do(partial(double, n) for n in range(5))) == [0, 2, 4, 6, 8]
        assert sorted(hands.do([partial(double, 7)])) == [14], "the crew can be asked again"
    assert not multiprocessing.active_children()


def hold_the_queue() -> str:
    """End as a worker may: in the middle of a message, with the queue's lock in its hand."""
    queue = crews._ticks
    assert queue is not None
    queue._wlock.acquire()
    os._exit(1)


def test_a_worker_that_ends_while_it_speaks_hangs_nobody() -> None:
    begun = time.monotonic()
    with pytest.raises(FederationError), board() as bars, crew(bars, 1) as hands:
        list(hands.do([hold_the_queue]))
    assert time.monotonic() - begun < 300


def test_what_had_finished_comes_before_the_error_and_nothing_new_begins(tmp_path: Path) -> None:
    jobs: list[Callable[[], str]] = [partial(mark, tmp_path / "a"), partial(fail, tmp_path / "b")]
    jobs += [partial(linger, tmp_path / f"later-{n}") for n in range(20)]
    got: list[str] = []
    with board() as bars, crew(bars, 1) as hands, pytest.raises(StorageError) as caught:
        got.extend(hands.do(jobs))
    assert caught.value.code == "storage-full"
    assert "a" in got
    assert len(got) < 10
    assert set(got) == {path.name for path in tmp_path.iterdir()} - {"b"}


def test_a_worker_that_was_killed_is_an_error_of_ours() -> None:
    with board() as bars, pytest.raises(FederationError) as caught, crew(bars, 1) as hands:
        list(hands.do([die]))
    assert caught.value.code == "worker-lost"
    assert not multiprocessing.active_children()


def test_an_error_outside_ends_the_workers_at_once() -> None:
    begun = time.monotonic()

    def stop() -> None:
        with board() as bars, crew(bars, 2) as hands:
            hands.pool.submit(wait)
            hands.pool.submit(double, 1).result()
            raise KeyError

    with pytest.raises(KeyError):
        stop()
    assert time.monotonic() - begun < 300, "nobody waited for the ten minutes of work"
    assert not multiprocessing.active_children()


def in_session(session: int) -> list[int]:
    """Processes of a session that are not just waiting to be reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGINT, "all"), (signal.SIGKILL, "starter")],
    ids=["Ctrl-C", "killed"],
)
def test_no_process_outlives_a_run_that_was_stopped(tmp_path: Path, number: int, whom: str) -> None:
    """The signal comes while images are made or taken in; a terminal sends it to every process."""
    command = [Path(sys.executable).parent / "consilium-sim", "demo", "--no-open"]
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen(
            [*command, "--hospitals", "2", "--patients", "400", "--out", tmp_path / "runs"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
    try:
        assert until(lambda: any((tmp_path / "runs").glob("*/federation/incoming/*/*/*")), PATIENCE_S)
        (os.killpg if whom == "all" else os.kill)(run.pid, number)
        assert run.wait(PATIENCE_S) != 0
        assert until(lambda: not in_session(run.pid), PATIENCE_S), in_session(run.pid)
    finally:
        for process in in_session(run.pid):
            os.kill(process, signal.SIGKILL)
        run.wait()
    assert "Traceback" not in (tmp_path / "said").read_text()
    if number == signal.SIGINT:
        assert not list((tmp_path / "runs").glob("*/federation/incoming"))
