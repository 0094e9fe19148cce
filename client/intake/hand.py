"""One worker process: what it is told, the tasks it holds, how long one may take, and whose fault its death is."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings
from client.index_rows import Percentiles
from client.intake.outcome import Outcome, Task, outcome_from, to_json
from client.intake.parse import too_much
from common.errors import IntakeError

MEMORY_BYTES: Final = 2**30
"""What one file may take on top of what a worker needs when it starts."""
TIME_LIMIT_S: Final = 60.0
CPU_LIMIT_S: Final = 60.0
START_LIMIT_S: Final = 120.0
_AT_LEAST: Final = 2
"""Tasks a worker has been sent: the one it works on, and the next."""
_AT_MOST: Final = 8
"""The same while they are small, so that several answers can be taken in one go."""
_SMALL_BYTES: Final = 8 * 2**20
"""Of all files in hand; behind a large one no others should have to wait while another worker is idle."""

_KEEP_MEMORY: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
"""What glibc does with the memory of one image when it is freed: keep it for the next, instead of giving it back to
the system and asking for it again, which took a fifth of a worker's time."""


@dataclass(frozen=True)
class Limits:
    """What one file may cost."""

    memory_bytes: int = MEMORY_BYTES
    time_s: float = TIME_LIMIT_S
    cpu_s: float = CPU_LIMIT_S
    """Of the processor, over all threads of the worker; in whole seconds, rounded up."""


@dataclass(frozen=True)
class Setup:
    """What every worker is told when it starts."""

    names: Pseudonyms
    percentiles: Mapping[tuple[str, str], Percentiles] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    deid: DeidSettings = field(default_factory=DeidSettings)
    tighten: str = ""
    """Text of the site's own stricter profile; empty: none."""

    def hello(self) -> str:
        """The first line a worker reads."""
        rows = [(m, s, p.images, dict(p.bounds)) for (m, s), p in self.percentiles.items()]
        return json.dumps(
            {
                "key": self.names.key.hex(),
                "spend": self.names.spend.hex(),
                "percentiles": rows,
                "memory": self.limits.memory_bytes,
                "cpu": self.limits.cpu_s,
                "deid": asdict(self.deid),
                "tighten": self.tighten,
                "parent": os.getpid(),
            }
        )


class Answer(NamedTuple):
    """What came back for a task."""

    task: Task
    outcome: Outcome
    line: str = ""
    """The outcome as the worker wrote it, checked; empty where no worker lived to write one."""


class Hand:
    """One process, the task it works on and those it takes up next, so that it need not wait for us."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.tasks: deque[Task] = deque()
        self.deadline = 0.0
        self._start()

    def _start(self) -> None:
        home = str(Path(__file__).resolve().parents[2])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **_KEEP_MEMORY}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "client.intake.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._buffer = b""
        self._send(self._setup.hello())
        self._ready = False

    @property
    def has_room(self) -> bool:
        """Whether it should be sent one more task: always a next one, and several while all are small."""
        held = len(self.tasks)
        return held < _AT_LEAST or (held < _AT_MOST and sum(map(_bytes, self.tasks)) < _SMALL_BYTES)

    @property
    def answers(self) -> int:
        """File descriptor on which the worker answers."""
        if self._process.stdout is None:
            return -1
        return self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def give(self, task: Task) -> None:
        """Send a task; its time runs once the process is up and the task before it is done."""
        self.tasks.append(task)
        if len(self.tasks) == 1:
            self._begin()
        self._send(to_json(task))

    def _begin(self) -> None:
        limit = self._setup.limits.time_s if self._ready else START_LIMIT_S
        self.deadline = time.monotonic() + limit

    def take(self) -> list[Answer]:
        """The answer that has come, or the refusal of a file that killed or outlasted its worker.

        Raises:
            IntakeError: the process died before it was ready.
        """
        if time.monotonic() >= self.deadline and not self._has_bytes():
            return self._lost(too_much_outcome())
        chunk = os.read(self.answers, 2**16)
        if not chunk:
            return self._lost(self._ended())
        self._buffer += chunk
        return self._lines()

    def _lines(self) -> list[Answer]:
        found: list[Answer] = []
        while b"\n" in self._buffer and self.tasks:
            line, self._buffer = self._buffer.split(b"\n", 1)
            if not self._ready:
                self._ready = True
                self._begin()
                continue
            number, _, said = line.partition(b" ")
            try:
                text = said.decode("utf-8")
                outcome = outcome_from(text)
            except ValueError:
                return [*found, *self._lost(_crash())]
            if number != b"%d" % self.tasks[0].number:  # an answer that nobody asked for
                return [*found, *self._lost(_crash())]
            found.append(Answer(self.tasks.popleft(), outcome, text))
            self._begin()
        return found

    def _ended(self) -> Outcome:
        """Why the process is gone: the kernel says when its processor time was used up."""
        with suppress(subprocess.TimeoutExpired):  # one that closed its pipe and lives is killed by `stop`
            self._process.wait(1.0)
        return too_much_outcome() if self._process.returncode == -signal.SIGXCPU else _crash()

    def _has_bytes(self) -> bool:
        return bool(select.select([self.answers], [], [], 0)[0])

    def _lost(self, outcome: Outcome) -> list[Answer]:
        started, tasks = self._ready, list(self.tasks)
        self.stop()
        if not started:
            raise IntakeError(
                "a worker process", "it does not start", "Check memory limits and the installation"
            )
        self.tasks.clear()
        self._start()
        for task in tasks[1:]:  # it was not begun
            self.give(task)
        return [Answer(task, outcome) for task in tasks[:1]]

    def _send(self, line: str) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(line.encode("utf-8") + b"\n")
                self._process.stdin.flush()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()


def too_much_outcome() -> Outcome:
    """The outcome of a file that took longer than a file may."""
    error = too_much()
    return Outcome(error.code, error.rule, error.remedy)


def _crash() -> Outcome:
    return Outcome(
        "parser-crash",
        "the process that read it died",
        "Check the file at its source; it may be damaged or made to harm",
    )


def _bytes(task: Task) -> int:
    return _SMALL_BYTES if task.stamp is None else task.stamp.size
