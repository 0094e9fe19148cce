"""Processes that are kept running: started, watched, started again with growing pauses, stopped as whole trees.

1. Each program is the leader of a session of its own; when it ends, whatever it left behind is ended too, so that
   nothing of it works on beside its successor.
2. Programs of one group share one fate: where one ends, the others are ended and all start again together.
3. A program that is asked whether it does its work (`Program.silent_s`), did so and no longer does is taken to hang. It is
   ended and started again, however it hangs.
4. The first starts again come at once, later ones after pauses that double up to a limit; a program that stayed
   up for a while begins anew. Nothing is ever given up: whoever looks at the status sees how often it ended.
5. What a program says goes to its log. Of a program that sees patients only lines of `common.logs` are kept; the
   rest is counted and withheld.
6. When the supervisor itself is killed its programs end with it (Linux ends them), and its successor ends what those
   left behind (`common.leftovers`), so that it can be started anew.

The supervisor has no thread: `tick` does what is due, `run` ticks until it is told to stop.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.leftovers import end_leftovers
from common.log_files import Bounded
from common.sessions import die_with_parent, locked, signal_tree
from common.spoken import Spoken

STATUS: Final = "status.json"
SCHEMA: Final = "consilium/processes/1"
_PAUSES_S: Final = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before the first, second, ... start again in a row: seven of them within sixteen seconds, then the last for good."""
_STEADY_S: Final = 30.0
"""A program that stayed up so long is taken to be well."""
_TICK_S: Final = 0.1
_FRESH_S: Final = 1.0
_STOP_S: Final = 10.0
_ASK_S: Final = 5.0
_READY_S: Final = 60.0
"""Whoever waits for another program to be ready starts after this long in any case."""
_HARMLESS: Final = ("LANG", "LC_ALL", "TZ", "PYTHONPATH", "OMP_NUM_THREADS")
"""Of our environment, what a program under another account gets too."""


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Program:
    """One process that should run."""

    name: str
    command: tuple[str, ...]
    folder: Path
    """Where it runs."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Besides that of the supervisor; never shown."""
    group: str = ""
    """Programs with the same word here share one fate; empty: it stands alone."""
    needs: tuple[str, ...] = ()
    """Names of programs that must be ready before this one starts."""
    ready: Callable[[], bool] = _always
    """Whether it does its work; asked while somebody waits for it, and while `silent_s` is set."""
    silent_s: float = 0.0
    """One that was ready and for so long is not any more is ended; 0: nobody asks."""
    sees_patients: bool = False
    logs: tuple[Path, ...] = ()
    """Files that it writes by itself, appending, besides what it says; they are kept from growing without end."""
    account: tuple[int, int] | None = None
    """Numbers of another account and its group under which it runs, with no other group; only root can do that."""


@dataclass
class _Kept:
    """One program and what became of it."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    spoken: Spoken | None = None
    starts: int = 0
    ended: int = 0
    """Times in a row that it did not stay up."""
    due: float = 0.0
    since: float = 0.0
    exit_status: int | None = None
    asked: float = 0.0
    heard: float = 0.0
    """When it was last asked whether it does its work, and when it last did."""

    def hangs(self) -> bool:
        """Whether it was ready and is not any more; a process that was never ready is still starting."""
        now, limit = time.monotonic(), self.program.silent_s
        if not limit or now - self.asked < min(_ASK_S, limit / 4):
            return False
        self.asked = now
        if self.program.ready():
            self.heard = time.monotonic()
        return self.heard > self.since and now - self.heard > limit


Ended = Callable[[str, int], None]
"""Called with a program's name and exit status (negative: the signal) before it is started again."""


def _unnoticed(_name: str, _status: int) -> None:
    """Nobody needs to know."""


class Supervisor:
    """Keeps programs running; logs and status lie in `folder`.

    Args:
        programs: in the order in which they are started; all are told to stop at once.
        folder: one supervisor at a time; made when it is not there.
        ended: told of every end that was not asked for.

    Raises:
        FederationError: code `running` when another supervisor holds the folder.
        StorageError: when the folder cannot be written.
    """

    def __init__(self, programs: Sequence[Program], folder: Path, ended: Ended = _unnoticed) -> None:
        self._folder = folder
        self._kept = {program.name: _Kept(program) for program in programs}
        self._ended = ended
        self._stopping = False
        self._told = ""
        self._told_s = 0.0
        self._logs = Bounded(log for one in programs for log in (folder / f"{one.name}.log", *one.logs))
        self._lock = locked(folder)
        end_leftovers(folder / STATUS)
        self._began = time.monotonic()

    def tick(self) -> None:
        """Notice what ended, start what is due, write the status down when it changed."""
        for kept in self._kept.values():
            self._notice(kept)
        for kept in self._kept.values():
            if kept.process is None and time.monotonic() >= kept.due and self._may_start(kept.program):
                self._start(kept)
        self._logs.look()
        self._tell()

    def run(self, go_on: Callable[[], bool]) -> None:
        """Tick while `go_on` says so, then stop everything."""
        try:
            while go_on():
                self.tick()
                time.sleep(_TICK_S)
        finally:
            self.stop()

    def stop(self) -> None:
        """End every program with its tree: a polite signal, then one that cannot be refused."""
        self._stopping = True
        for kept in self._kept.values():
            if kept.process is not None and kept.process.poll() is None:
                signal_tree(kept.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for kept in reversed(self._kept.values()):
            self._end(kept, max(deadline - time.monotonic(), _TICK_S))
        self._tell()
        self._lock.close()

    def pid(self, name: str) -> int | None:
        """The process id of a program; None while it does not run."""
        process = self._kept[name].process
        return None if process is None or process.poll() is not None else process.pid

    def starts(self, name: str) -> int:
        """How often a program was started."""
        return self._kept[name].starts

    def restart(self, name: str) -> None:
        """End a program; it is started again at the next tick."""
        self._end(self._kept[name], _STOP_S)
        self._kept[name].due = 0.0

    def _notice(self, kept: _Kept) -> None:
        if kept.spoken is not None:
            kept.spoken.write()
        if kept.process is None:
            return
        if (status := kept.process.poll()) is None:
            if not kept.hangs():
                return
            signal_tree(kept.process.pid, signal.SIGKILL)
            status = kept.process.wait()
        steady = time.monotonic() - kept.since >= _STEADY_S
        kept.ended = 1 if steady else kept.ended + 1
        kept.exit_status = status
        for other in self._fellows(kept):
            self._end(other, 0.0)
            other.due = time.monotonic() + _PAUSES_S[min(kept.ended, len(_PAUSES_S)) - 1]
        self._ended(kept.program.name, status)

    def _fellows(self, kept: _Kept) -> list[_Kept]:
        group = kept.program.group
        return [k for k in self._kept.values() if k is kept or (group and k.program.group == group)]

    def _may_start(self, program: Program) -> bool:
        if time.monotonic() - self._began > _READY_S:
            return True
        return all(self.pid(name) is not None and self._kept[name].program.ready() for name in program.needs)

    def _start(self, kept: _Kept) -> None:
        program = kept.program
        reading = writing = None
        if program.sees_patients:
            reading, writing = os.pipe()
        log = (self._folder / f"{program.name}.log").open("ab")
        try:
            kept.process = subprocess.Popen(  # noqa: S603 - a fixed command of our own, no shell
                program.command,
                cwd=program.folder,
                env={**_inherited(program), **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log if writing is None else writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=None if program.account is None else program.account[0],
                group=None if program.account is None else program.account[1],
                extra_groups=None if program.account is None else [],
                preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has no threads
            )
        except OSError:  # no such program, or no right to another account
            kept.due, kept.ended = time.monotonic() + _PAUSES_S[-1], kept.ended + 1
            return
        finally:
            log.close()
            if writing is not None:
                os.close(writing)
        kept.spoken = None if reading is None else Spoken(reading, self._folder / f"{program.name}.log")
        kept.starts += 1
        kept.since = time.monotonic()

    def _end(self, kept: _Kept, wait_s: float) -> None:
        process = kept.process
        if process is None:
            return
        if process.poll() is None and wait_s:
            signal_tree(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
        # What it left behind goes too, whether it ended by itself or not.
        signal_tree(process.pid, signal.SIGKILL)
        process.wait()
        if kept.spoken is not None:
            kept.spoken.close()
            kept.spoken = None
        kept.process = None

    def _tell(self) -> None:
        """The status file; its writing must never end the supervisor."""
        programs = {
            name: {
                "state": self._state(kept),
                "pid": None if kept.process is None else kept.process.pid,
                "starts": kept.starts,
                "exit_status": kept.exit_status,
            }
            for name, kept in self._kept.items()
        }
        told = json.dumps({"schema": SCHEMA, "pid": os.getpid(), "programs": programs}, indent=1)
        path = self._folder / STATUS
        with suppress(OSError):
            if told == self._told:
                # Its time says until when all this was so; what a successor may end began before.
                if time.monotonic() - self._told_s >= _FRESH_S:
                    os.utime(path)
                    self._told_s = time.monotonic()
                return
            path.with_suffix(".tmp").write_text(told, encoding="utf-8")
            path.with_suffix(".tmp").replace(path)
            self._told = told

    def _state(self, kept: _Kept) -> str:
        if kept.process is not None:
            return "running"
        return "stopped" if self._stopping else "waiting"


def _inherited(program: Program) -> Mapping[str, str]:
    """What a program finds of our environment: all; under another account only what names no secret."""
    if program.account is None:
        return os.environ
    kept = {name: os.environ[name] for name in _HARMLESS if name in os.environ}
    return {**kept, "HOME": str(program.folder)}
