"""A federation without a network: Flower's Grid in one process, for simulations and tests.

The same ServerApp and ClientApp run as in a deployment. A message put on the grid waits; a pull lets
the next waiting node do its work and returns its reply. Nothing sleeps and nothing is polled.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client import direct
from client.app import app as client_app
from client.service import SiteService
from common.plan import Plan, dump_plan
from server.app import app as server_app
from server.journal import read_federation
from server.records import FederationRecord

Progress = Callable[[int, str], None]
"""Called with step and site after each answer: 0 the survey, 1..R the rounds, R+1 the threshold,
R+2 the evaluation."""


def nobody(_round: int, _site: str) -> None:
    """Progress nobody watches."""


class InProcessGrid(Grid):
    """Nodes 1..n, each a virtual hospital.

    `order` chooses which waiting node answers next; `away` says by hospital in which rounds it does not answer.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        app: ClientApp = client_app,
        progress: Progress = nobody,
        order: Callable[[int], int] = lambda _waiting: 0,
        away: Mapping[str, Container[int]] | None = None,
    ) -> None:
        self._app = app
        self._progress = progress
        self._order = order
        self._away = away or {}
        self._run = Run.create_empty(run_id=secrets.randbits(63))
        # Flower's runtimes say who a process is before its app runs; a Message reads it from there.
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.task_id = 0
        TaskIdentity.node_id = 0
        self._contexts = {
            number: Context(
                run_id=self._run.run_id,
                node_id=number,
                node_config={"site-folder": str(folder)},
                state=RecordDict(),
                run_config={},
            )
            for number, folder in enumerate(folders, start=1)
        }
        self._names = {number: folder.name for number, folder in enumerate(folders, start=1)}
        self._waiting: list[Message] = []
        # Beside the hospitals, because what it holds is about their ledgers and no others.
        self.consortium = folders[0].parent / "consortium" if folders else None

    def set_run(self, run: Run) -> None:
        """Take over a run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node; Flower's older way of making one."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The numbers of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let messages wait for their nodes; gives their ids."""
        ids = []
        for message in messages:
            ids.append(numbered(message))
            self._waiting.append(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the node whose turn it is work and give its reply, if its message is among `message_ids`."""
        now = time.time()
        self._waiting = [m for m in self._waiting if m.metadata.created_at + m.metadata.ttl > now]
        if not self._waiting:
            return []
        turn = self._order(len(self._waiting))
        if self._waiting[turn].metadata.message_id not in set(message_ids):
            return []
        return self.deliver(self._waiting.pop(turn))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send to all and give all replies; there is no waiting, so `timeout` never passes."""
        del timeout
        ids = list(self.push_messages(messages))
        return [reply for _ in ids for reply in self.pull_messages(ids)]

    def deliver(self, message: Message) -> list[Message]:
        """Hand a message to its node's ClientApp; a test may lose, repeat or change the reply here."""
        gone = self.gone(message)
        if gone is not None:
            return [gone]
        reply = carried(self._app, message, self.context_of(message))
        self.told(message)
        return [reply]

    def gone(self, message: Message) -> Message | None:
        """Flower's error for a node that is away in this message's round; None for one that is there."""
        if _step(message) in self._away.get(self._names[message.metadata.dst_node_id], ()):
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "away"), reply_to=message)
        return None

    def context_of(self, message: Message) -> Context:
        """Of the node that a message is for."""
        return self._contexts[message.metadata.dst_node_id]

    def told(self, message: Message) -> None:
        """Say that a message was answered."""
        self._progress(_step(message), self._names[message.metadata.dst_node_id])


def numbered(message: Message) -> str:
    """Give a message an id, as a SuperLink does; the id."""
    number = str(uuid4())
    message.metadata.__dict__["_message_id"] = number
    return number


def carried(app: Callable[[Message, Context], Message], message: Message, context: Context) -> Message:
    """A ClientApp's reply; what it raises comes back as Flower's error, as its own runtimes do it."""
    try:
        return app(message, context)
    except Exception as error:  # noqa: BLE001 - Flower's runtimes do the same at this place
        reason = type(error).__name__
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def _step(message: Message) -> int:
    return int(message.metadata.group_id or 0)


def run_in_process(
    sites: Sequence[SiteService],
    plan: Plan,
    out: Path,
    progress: Progress | None = None,
    away: Mapping[str, Container[int]] | None = None,
) -> FederationRecord:
    """Run a plan over these hospitals in this process, through ServerApp and ClientApp.

    Args:
        sites: the hospitals.
        plan: what they do.
        out: receives the record, the model and the log.
        progress: told of every answer.
        away: by hospital, the rounds in which it does not answer.

    Raises:
        ConsiliumError: what ended the run; `out/federation.json` then holds its code.
    """
    for site in sites:
        direct.host(site)
    grid = InProcessGrid([site.site.folder for site in sites], progress=progress or nobody, away=away)
    return run_on(grid, plan, out)


def run_on(grid: InProcessGrid, plan: Plan, out: Path) -> FederationRecord:
    """Run a plan over a grid that is already there; see `run_in_process`."""
    import torch  # noqa: PLC0415 - a grid over processes has it in those, imported in their own way

    # One thread each: many small operations on many threads are slower than on one (facts: 13 times).
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plan.toml"
    path.write_text(dump_plan(plan), encoding="utf-8")
    nodes = len(list(grid.get_node_ids()))
    context = Context(
        run_id=grid.run.run_id,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config={
            "plan": str(path),
            "federation": "",
            "out": str(out),
            "consortium": str(grid.consortium or ""),
            "nodes": nodes,
            "turns": nodes,
        },
    )
    server_app(grid, context)
    return read_federation(out / "federation.json")
