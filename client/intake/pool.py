"""Worker processes over all cores: each file in a limited process, a dead or hung one costs that file only.

Answers come back in the order of the tasks, so that what is kept does not depend on how many cores
a hospital has.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from client.intake.hand import MEMORY_BYTES, START_LIMIT_S, Answer, Hand, Limits, Setup
from client.intake.outcome import Outcome, Task

__all__ = ["MEMORY_BYTES", "START_LIMIT_S", "Answer", "Limits", "Pool", "Setup"]

_AHEAD: Final = 64
"""Tasks begun before the oldest is answered, so that one slow file does not pile up the others."""
_LONGEST_PAUSE_S: Final = 0.02
"""By so much at most a file may exceed its time before its worker is ended."""
_LEFT: Final = 2
"""Tasks that a worker should still have when we look again."""


class Pool:
    """Processes that serve `run`; a context manager.

    Args:
        setup: keys, bounds and limits.
        workers: number of processes; all cores this process may use when None.
    """

    def __init__(self, setup: Setup, workers: int | None = None) -> None:
        self._setup = setup
        self._count = workers or len(os.sched_getaffinity(0))
        self._hands: list[Hand] = []
        self._pace = _Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hand in self._hands:
            hand.stop()
        self._hands.clear()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        return tuple(hand.pid for hand in self._hands)

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Process the tasks; each comes back with its outcome, in their order.

        Raises:
            IntakeError: a worker cannot be started at all.
        """
        return ((answer.task, answer.outcome) for answer in self.answers(tasks))

    def answers(self, tasks: Iterable[Task]) -> Iterator[Answer]:
        """The same, each with the line in which its worker said so.

        Raises:
            IntakeError: a worker cannot be started at all.
        """
        source = iter(tasks)
        waiting: deque[Task] = deque()
        done: dict[int, Answer] = {}
        exhausted = False
        while True:
            exhausted = self._feed(source, waiting) if not exhausted else True
            while waiting and waiting[0].number in done:
                yield done.pop(waiting.popleft().number)
            if exhausted and not waiting:
                return
            for answer in self._collect():
                done[answer.task.number] = answer

    def _feed(self, source: Iterator[Task], waiting: deque[Task]) -> bool:
        """Give every hand that has room a task; True when there are no more."""
        while len(waiting) < _AHEAD * self._count:
            hand = self._with_room()
            if hand is None:
                return False
            task = next(source, None)
            if task is None:
                return True
            waiting.append(task)
            hand.give(task)
        return False

    def _with_room(self) -> Hand | None:
        """The hand with the least to do; a new one before any has two tasks."""
        least = min(self._hands, key=lambda hand: len(hand.tasks), default=None)
        if least is not None and not least.tasks:
            return least
        if len(self._hands) < self._count:
            self._hands.append(Hand(self._setup))
            return self._hands[-1]
        return least if least is not None and least.has_room else None

    def _collect(self) -> list[Answer]:
        busy = [hand for hand in self._hands if hand.tasks]
        time.sleep(self._pace.pause(min((len(hand.tasks) for hand in busy), default=0)))
        wait = max(0.0, min((hand.deadline for hand in busy), default=0.0) - time.monotonic())
        ready, _, _ = select.select([hand.answers for hand in busy], [], [], wait)
        found = [
            answer
            for hand in busy
            if hand.answers in ready or hand.deadline <= time.monotonic()
            for answer in hand.take()
        ]
        self._pace.took(len(found) / max(1, len(busy)))
        return found


class _Pace:
    """How long a file takes a worker now, so that we look again when it has answered a few and has the next in hand.

    To wake for every answer costs as much as what is then done: the worker is pushed off its processor, and both begin
    with cold caches.
    """

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._each_s = 0.0
        """A running mean, per worker."""

    def took(self, answers: float) -> None:
        """So many answers came from each worker since this was last said."""
        now = time.monotonic()
        if answers:
            each = (now - self._looked) / answers
            self._each_s = each if not self._each_s else 0.7 * self._each_s + 0.3 * each
        self._looked = now

    def pause(self, held: int) -> float:
        """Seconds until about half of the tasks are done that the worker with the fewest holds; at least two are left."""
        return min(_LONGEST_PAUSE_S, max(0, held - _LEFT) / 2 * self._each_s)
