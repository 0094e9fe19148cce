"""One process at a time: the second is told so or waits, and the kernel frees what a killed one held."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.locks import awaited, taken

HOLDS = """
import sys
from pathlib import Path
from common.locks import taken
held = taken(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the file."""
    words = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_second_is_told_and_gets_it_when_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = taken(path)
    with pytest.raises(BlockingIOError):
        taken(path)
    first.close()
    taken(path).close()


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another(path) as process:
        with pytest.raises(BlockingIOError):
            taken(path)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        taken(path).close()


def test_who_takes_turns_waits_for_the_one_before(tmp_path: Path) -> None:
    path, order, begun = tmp_path / "lock", [], threading.Event()

    def second() -> None:
        begun.set()
        with awaited(path):
            order.append("second")

    waits = threading.Thread(target=second)
    with awaited(path):
        waits.start()
        assert begun.wait(60)
        with pytest.raises(BlockingIOError):
            taken(path)
        order.append("first")
    waits.join(60)
    assert order == ["first", "second"]


def test_who_waits_for_a_while_gets_what_is_let_go_meanwhile(tmp_path: Path) -> None:
    path, got = tmp_path / "lock", threading.Event()

    def second() -> None:
        with taken(path, 600.0):
            got.set()

    waits = threading.Thread(target=second, daemon=True)
    with taken(path):
        waits.start()
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            taken(path, 0.3)
        assert time.monotonic() - began >= 0.3
        assert not got.is_set()
    assert got.wait(60)
    waits.join(60)


def test_a_turn_that_ends_in_an_error_is_over(tmp_path: Path) -> None:
    with pytest.raises(KeyError), awaited(tmp_path / "lock"):
        raise KeyError
    taken(tmp_path / "lock").close()


@pytest.mark.parametrize("take", [taken, awaited])
def test_a_file_that_cannot_be_made_is_the_systems_error_and_nobody_is_called_busy(
    tmp_path: Path, take
) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "nowhere" / "lock")
