"""A federation on all cores: worker processes, one thread each, that take virtual hospitals in turn.

The ServerApp stays in the process that started it. A worker carries a message through the same ClientApp to the same
site service as `simulations.grid`, in a process of its own; whichever is free takes the next hospital. A hospital's state is on its disk, a question
waits until the one before it is answered, and updates are summed exactly: so the result is the same to the bit for any number of workers.

Workers hold virtual hospitals only and leave it to the kernel when files reach the disk (`common.durability`). Each keeps the
services of the last few hospitals (`client.direct`), so that memory does not grow with their number.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self

from flwr.app import Context, Message

from common.durability import relax
from common.errors import FederationError
from common.plan import Plan
from server.records import FederationRecord
from simulations.forks import chosen, is_here
from simulations.grid import InProcessGrid, Progress, carried, nobody, numbered, run_on

_LOOK_S: Final = 0.5
"""How long a look for replies waits; whoever asks has a deadline of its own."""
_GRACE_S: Final = 10.0

Opened = Callable[[Path], object]
"""Called in a worker with a hospital's folder before its first question there; makes the folder where it is not."""


@dataclass
class Desk:
    """What the threads of the starter share with whoever pulls; to be touched under `came` only."""

    came: threading.Condition = field(default_factory=threading.Condition)
    waiting: list[tuple[Message, Context]] = field(default_factory=list)
    replies: dict[str, Message] = field(default_factory=dict)
    """By the id of the message that is answered."""
    last: dict[int, int] = field(default_factory=dict)
    """Which worker had a node's message last: it has the hospital's data at hand."""
    unanswered: set[str] = field(default_factory=set)
    lost: bool = False
    """Whether a worker was ended from outside."""
    ended: bool = False

    def push(self, message: Message, context: Context) -> None:
        """Let a message wait for the next worker."""
        with self.came:
            self.unanswered.add(message.metadata.message_id)
            self.waiting.append((message, context))
            self.came.notify_all()

    def answer(self, reply: Message) -> None:
        """Lay a reply down for whoever pulls."""
        with self.came:
            self.unanswered.discard(reply.metadata.reply_to_message_id)
            self.replies[reply.metadata.reply_to_message_id] = reply
            self.came.notify_all()

    def next(self, worker: int) -> tuple[Message, Context] | None:
        """The message that has waited longest of those whose hospital this worker has at hand, else of all.

        Returns:
            Once there is one; None when there will be no more.
        """
        with self.came:
            self.came.wait_for(lambda: self.waiting or self.ended or self.lost)
            if self.ended or self.lost:
                return None
            nodes = [message.metadata.dst_node_id for message, _ in self.waiting]
            known = (place for place, node in enumerate(nodes) if self.last.get(node, worker) == worker)
            place = next(known, 0)
            self.last[nodes[place]] = worker
            return self.waiting.pop(place)

    def pull(self, numbers: Iterable[str]) -> list[Message]:
        """The replies of these that are there; where there is none of anybody, what comes first, if soon."""
        wanted = list(numbers)
        with self.came:
            if not self.replies and not self.unanswered.isdisjoint(wanted):
                self.came.wait_for(lambda: self.lost or self.replies, _LOOK_S)
            if self.lost:
                raise FederationError(
                    "a worker process",
                    "it was ended from outside",
                    "Check the memory, then repeat",
                    code="worker-lost",
                )
            return [self.replies.pop(number) for number in wanted if number in self.replies]

    def end(self, *, lost: bool = False) -> None:
        """No message is begun any more."""
        with self.came:
            self.ended, self.lost = True, self.lost or lost
            self.waiting.clear()
            self.came.notify_all()


@dataclass(frozen=True)
class _Hand:
    """One worker, its pipe, and the thread that feeds it."""

    process: Any
    pipe: Connection
    feeder: threading.Thread


class Workers:
    """Worker processes; a context manager, after which none is left.

    Args:
        count: how many; all cores this process may use when None.
        opened: see `Opened`; must be picklable.
    """

    def __init__(self, count: int | None = None, opened: Opened | None = None) -> None:
        self.count = count or len(os.sched_getaffinity(0))
        self.desk = Desk()
        self._opened = opened
        self._hands: list[_Hand] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes' numbers."""
        return tuple(hand.process.pid for hand in self._hands)

    def __enter__(self) -> Self:
        """Start them; they are ready when they have forked."""
        context, pipes = chosen(), list[Connection]()
        processes = []
        for number in range(self.count):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            # A fork holds the pipes of those before it, too: held on, nobody would notice that this process is gone.
            held = tuple(pipes) if is_here(context) else ()
            process = context.Process(  # type: ignore[attr-defined]  # each kind of context has its own
                target=_serve, args=(theirs, self._opened, held), name=f"hospitals-{number}", daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
        for number, (process, pipe) in enumerate(
            zip(processes, pipes, strict=True)
        ):  # threads after all forks
            feeder = threading.Thread(
                target=_feed, args=(number, pipe, self.desk), name=process.name, daemon=True
            )
            feeder.start()
            self._hands.append(_Hand(process, pipe, feeder))
        return self

    def __exit__(self, *_: object) -> None:
        """End each: one that waits at once, one at work when it has done it, or after ten seconds."""
        self.desk.end()
        for hand in self._hands:
            hand.feeder.join(_GRACE_S)
            if hand.feeder.is_alive():
                hand.process.terminate()
                hand.feeder.join(_GRACE_S)
            hand.pipe.close()
            hand.process.join(_GRACE_S)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()


class WorkerGrid(InProcessGrid):
    """Flower's Grid over `Workers`: a message pushed is begun at once, a pull waits for what comes next."""

    def __init__(
        self,
        folders: Sequence[Path],
        workers: Workers,
        progress: Progress = nobody,
        away: Mapping[str, Container[int]] | None = None,
    ) -> None:
        super().__init__(folders, progress=progress, away=away)
        self._desk = workers.desk
        self._asked: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to the workers; gives their ids."""
        ids = []
        for message in messages:
            number = numbered(message)
            ids.append(number)
            gone = self.gone(message)
            if gone is not None:
                self._desk.answer(gone)
                continue
            self._asked[number] = message
            self._desk.push(message, self.context_of(message))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come, or that come next.

        Raises:
            FederationError: `worker-lost`.
        """
        found = self._desk.pull(message_ids)
        for reply in found:
            asked = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if asked is not None:
                self.told(asked)
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send to all and give all replies, or those that came within `timeout` seconds."""
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        open_, found = set(self.push_messages(messages)), list[Message]()
        while open_ and time.monotonic() < end:
            came = list(self.pull_messages(open_))
            open_ -= {reply.metadata.reply_to_message_id for reply in came}
            found += came
        return found


@dataclass(frozen=True)
class Hands:
    """How a federation is carried out on several processes; nothing here changes its result."""

    workers: int | None = None
    """Processes; all cores when None."""
    opened: Opened | None = None


def run_on_workers(
    folders: Sequence[Path],
    plan: Plan,
    out: Path,
    hands: Hands | None = None,
    *,
    progress: Progress = nobody,
    away: Mapping[str, Container[int]] | None = None,
) -> FederationRecord:
    """Run a plan over these hospitals on several processes; as `simulations.grid.run_in_process`.

    Args:
        folders: of the hospitals, all virtual.
        plan: what they do.
        out: receives the record, the model and the log.
        hands: the processes.
        progress: told of every answer.
        away: by hospital, the rounds in which it does not answer.

    Raises:
        ConsiliumError: what ended the run; `worker-lost` when a worker was ended from outside.
    """
    hands = hands or Hands()
    with Workers(hands.workers, hands.opened) as workers:
        return run_on(WorkerGrid(folders, workers, progress, away), plan, out)


def _feed(number: int, pipe: Connection, desk: Desk) -> None:
    """Give one worker message after message, for as long as there are any."""
    try:
        while (job := desk.next(number)) is not None:
            pipe.send(job)
            desk.answer(pipe.recv())
        pipe.send(None)
    except (EOFError, OSError):
        desk.end(lost=True)


def _serve(pipe: Connection, opened: Opened | None, held: Sequence[Connection]) -> None:
    """Carry messages to hospitals until there are no more, or nobody is left who sends them.

    `held` are ends of the starter's pipes that came along with a fork of it.
    """
    from client.app import app  # noqa: PLC0415 - the starter has no use for it

    for end in held:
        end.close()
    relax()
    known: set[str] = set()

    def answered(message: Message, context: Context) -> Message:
        folder = str(context.node_config["site-folder"])
        if opened is not None and folder not in known:
            opened(Path(folder))
            known.add(folder)
        return app(message, context)

    with suppress(EOFError, KeyboardInterrupt):
        while (job := pipe.recv()) is not None:
            pipe.send(carried(answered, *job))
