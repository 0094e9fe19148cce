"""One question to many nodes over Flower's Grid, and their answers as they arrive.

Nodes are anonymous numbers here. An answer is matched to its node by the message it replies to,
because an error Flower makes up for a lost node does not name it. A second answer is handed on
too, for admission to refuse; an answer to nothing we asked is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from flwr.app import Array, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common import wire
from common.errors import ConsiliumError, FederationError
from common.messages import Countersignature, Kind, Update
from common.parts import LARGE, joined
from common.tensors import Blob

_TYPES: Final = {
    Kind.SURVEY: MessageType.QUERY,
    Kind.PRESENT: MessageType.QUERY,
    Kind.TRAIN: MessageType.TRAIN,
    Kind.KEYS: MessageType.QUERY,
    Kind.SHARES: MessageType.QUERY,
    Kind.CONSENT: MessageType.QUERY,
    Kind.UNMASK: MessageType.QUERY,
    Kind.ANALYSE: MessageType.QUERY,
    Kind.THRESHOLD: MessageType.EVALUATE,
    Kind.EVALUATE: MessageType.EVALUATE,
}
NO_REPLY: Final = "no-reply"
NOT_APPROVED: Final = "not-approved"
"""The node's own word: its hospital did not approve the app bundle (`client.node`)."""
CRASHED: Final = "client-crashed"
"""The courier's process ended under the question; it says nothing about the site."""
TOO_LONG: Final = 9001
MALFORMED: Final = 9002
"""Error codes of our own, beside Flower's: a reply that was not fetched to its end, and none at all (`server.streaming`)."""
_SILENT: Final = (
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
)
_SHORTEST_POLL_S: Final = 0.002
_LONGEST_POLL_S: Final = 0.05
_POLL_SHARE: Final = 0.02
"""A pause is this share of the time already waited: it costs at most 2% and never spins."""
_GRACE_S: Final = 1.0
_SPARE_BYTES: Final = 16 << 20
"""What a reply may hold besides as many tensors as were sent."""
_SETTLE_S: Final = 1.0
"""How long the number of nodes must stay the same before we believe it is all of them."""


@dataclass(frozen=True)
class Answer:
    """What came back from one node: a message, or the code of why there is none."""

    node: int
    message: wire.Message | None
    code: str
    bytes: int
    blob: Blob = b""
    """The message as it came; empty where there is none, or where it lies on disk already."""


@dataclass(frozen=True)
class Question:
    """The same bytes for every node, what belongs to one node only, and how long to wait."""

    kind: Kind
    blob: Blob
    step: int
    """0 for the survey, then the round; threshold and evaluation are the two steps after the last."""
    deadline_s: float
    virtual: str = ""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """The bytes as Flower carries them, made once for all nodes; made anew for each where there are none."""
    countersigned: Mapping[int, Countersignature] = field(default_factory=dict)
    """Per node, of its site's ledger head; a node without one has shown none yet."""

    @property
    def most_bytes(self) -> int:
        """A longer reply is not even read."""
        return most_bytes(len(self.blob))


def most_bytes(asked: int) -> int:
    """How long a reply may be to a question of so many bytes: nothing we ask for is twice as large as the model."""
    return 2 * asked + _SPARE_BYTES


def ask(grid: Grid, question: Question, nodes: Mapping[int, bool]) -> Iterator[Answer]:
    """Ask every node and give each first answer when it comes, until all did or time is up.

    `nodes` says for each whether it is worth the whole deadline: one that was silent in the round
    before is asked too, but once the others answered it gets only as long again, plus a second.
    """
    started = time.monotonic()
    asked = {push(grid, question, node): node for node in nodes}
    pending = dict(asked)
    while pending:
        came = False
        # One at a time, so that the server never holds more than one update.
        for wanted in list(pending):
            for reply in grid.pull_messages([wanted]):
                number = reply.metadata.reply_to_message_id
                pending.pop(number, None)
                if number in asked:
                    came = True
                    yield answer_in(asked[number], reply, question.most_bytes)
        waited = time.monotonic() - started
        if waited >= question.deadline_s:
            return
        if pending and not any(nodes[node] for node in pending.values()):
            question = _shortened(question, waited)
            nodes = dict.fromkeys(nodes, True)
        if not came:
            time.sleep(pause(waited))


def pause(waited_s: float) -> float:
    """Seconds to sleep before looking again, after waiting `waited_s` so far."""
    return min(max(waited_s * _POLL_SHARE, _SHORTEST_POLL_S), _LONGEST_POLL_S)


def nodes_present(
    grid: Grid, wanted: int, deadline_s: float, *, exact: bool, least: int | None = None
) -> list[int]:
    """Wait for `wanted` nodes, and unless that is `exact`, until no more of them come.

    At the deadline `least` of them are enough; without it, all are needed.

    Raises:
        FederationError: code `no-nodes` when fewer are there at the deadline.
    """
    started = changed = time.monotonic()
    seen: list[int] = []
    while True:
        now = time.monotonic()
        there = sorted(grid.get_node_ids())
        if there != seen:
            seen, changed = there, now
        if len(seen) >= wanted and (exact or now - changed >= _SETTLE_S):
            return seen
        if now - started > deadline_s:
            if least is not None and len(seen) >= least:
                return seen
            raise FederationError(
                "federation",
                f"{len(seen)} of {wanted} nodes are connected",
                "Start the missing nodes, or lower federation.least_sites",
                code="no-nodes",
            )
        time.sleep(pause(now - started))


Observer = Callable[[int, str], None]
"""Called with the round and the site's name after each answer that was admitted."""


def push(grid: Grid, question: Question, node: int, ttl_s: float | None = None) -> str:
    """Put a question to one node; gives the message's id. It is worth `ttl_s`, the deadline when not given."""
    message = Message(
        wire.to_records(question.arrays or question.blob, question.virtual, question.countersigned.get(node)),
        node,
        _TYPES.get(question.kind, MessageType.TRAIN),
        ttl=question.deadline_s if ttl_s is None else ttl_s,
        group_id=str(question.step),
    )
    ids = list(grid.push_messages([message]))
    # A grid that takes no message for a node gives no id; the node then counts as silent.
    return (ids[0] if ids else "") or f"not-sent-{node}"


def answer_in(node: int, reply: Message, most_bytes: int) -> Answer:
    """What a node's reply holds, or the code of why it holds nothing: `too-long`, `wire`, or how it was lost."""
    if reply.has_error():
        lost = {ErrorCode.CLIENT_APP_CRASHED: CRASHED, **dict.fromkeys(_SILENT, NO_REPLY)}
        lost |= {ErrorCode.INVALID_FAB: NOT_APPROVED, TOO_LONG: "too-long", MALFORMED: "wire"}
        return Answer(node, None, lost.get(reply.error.code, "client-error"), 0)
    try:
        head, held, own = wire.spread(reply.content)
        size = sum(len(part) for part in held)
        if size > most_bytes:
            return Answer(node, None, "too-long", size)
        blob = wire.from_records(reply.content) if head or own else joined(held)
        if size > LARGE:
            # Whoever holds the reply would hold a second copy of the model for as long.
            reply.content = RecordDict()
        return Answer(node, wire.unpack(blob, viewed=(Update,)), "", size, blob)
    except ConsiliumError as error:
        return Answer(node, None, error.code, 0)


def takes_maps(grid: Grid) -> bool:
    """Whether a grid moves what lies in a mapped file from there, and holds none of several replies in memory."""
    return bool(getattr(grid, "takes_maps", False))


def _shortened(question: Question, waited_s: float) -> Question:
    deadline = min(question.deadline_s, 2 * waited_s + _GRACE_S)
    return replace(question, deadline_s=deadline)
