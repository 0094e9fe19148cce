"""Long messages over Flower's grid: a few megabytes of them in memory at a time, the same bytes at the other end."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import tracemalloc
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from common import tensors, wire
from common.messages import Progress, Update
from common.parts import PART, parts
from server.exchange import answer_in, takes_maps
from server.streaming import StreamedGrid, streamed
from simulations.grid import InProcessGrid

MIB = 1 << 20
READ = {
    (
        "flwr.superlink.grid.http_grid",
        "HttpGrid",
    ): "72e288cdc292c3fd37a424966e4d27be31757de12372af5f1695707c19eb303e",
    ("flwr.app.message.array", "Array"): "2a9b9129698138b3bc278eafd9b0df62b71eadf7a7bf224f97d72ebc537ba2bc",
    (
        "flwr.app.message.arraychunk",
        "ArrayChunk",
    ): "d62339be137806c347b35705f001d1ac764eafa3d0332b7b79c81a637a9ee322",
    (
        "flwr.app.message.arrayrecord",
        "ArrayRecord",
    ): "8937b5fb6c78393b1bc8de2630d9b11a287298ceaed656f1b20cd8f793d62ebe",
    (
        "flwr.supercore.inflatable.inflatable_object",
        "get_object_head_values_from_object_content",
    ): "d9288c47e775b67aa56ee0e21641315cf244b9ae0b0bd1d125a52070d863bc5b",
    (
        "flwr.supercore.inflatable.inflatable_protobuf_utils",
        "make_pull_object_fn_protobuf",
    ): "ede05e6314fa253a1f31656f5880fbd204fb36c0f192072c65cfb6a6f2742897",
    (
        "flwr.supercore.inflatable.inflatable_utils",
        "push_objects",
    ): "5893dafc584a46c8f743cad77554f3366cc03074f7807238bd3dd07ec2be39d0",
    (
        "flwr.superlink.servicer.runtime.runtime_handlers",
        "pull_messages",
    ): "8c998d6d197c09e4e7c9ceca1e16c49b9976510a827d759cab7928809431a288",
}
"""Parts of Flower 1.41.0 that the grid was written beside, and the SHA-256 of their source."""


class Objects(MutableMapping[str, bytes]):
    """Objects as files, so that what a test counts is the grid's memory and not this one's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def __getitem__(self, number: str) -> bytes:
        if number not in self:
            raise KeyError(number)
        return (self._folder / number).read_bytes()

    def __contains__(self, number: object) -> bool:
        return (self._folder / str(number)).exists()

    def __setitem__(self, number: str, content: bytes) -> None:
        (self._folder / number).write_bytes(content)

    def __delitem__(self, number: str) -> None:
        (self._folder / number).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self._folder.iterdir())

    def __len__(self) -> int:
        return len(list(self._folder.iterdir()))


@dataclass
class Link:
    """Flower's Runtime API as far as a grid speaks it: objects by their SHA-256, messages as trees of them."""

    objects: Objects
    asked: list[tuple[Any, Any]] = field(default_factory=list)
    replies: list[tuple[Any, Any]] = field(default_factory=list)
    pushes: int = 0
    pulls: int = 0
    confirmed: list[str] = field(default_factory=list)
    late: set[str] = field(default_factory=set)

    def PushMessages(self, request: Any) -> Any:  # noqa: N802 - Flower's name
        """Take messages, and say which objects of theirs are not here yet."""
        self.asked += zip(request.messages_list, request.message_object_trees, strict=True)
        wanted = {number for tree in request.message_object_trees for number in _numbers(tree)}
        return PushAppMessagesResponse(
            message_ids=[m.metadata.message_id for m in request.messages_list],
            objects_to_push=sorted(wanted - set(self.objects)),
            session_id="s",
        )

    def PushObject(self, request: Any) -> Any:  # noqa: N802
        """Take an object, if it is what its number says."""
        assert hashlib.sha256(request.object_content).hexdigest() == request.object_id
        self.objects[request.object_id] = request.object_content
        self.pushes += 1
        return PushObjectResponse(stored=True)

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        """The replies to these messages, each named once."""
        there = [r for r in self.replies if r[0].metadata.reply_to_message_id in request.message_ids]
        self.replies = [r for r in self.replies if r not in there]
        return PullAppMessagesResponse(
            messages_list=[r[0] for r in there], message_object_trees=[r[1] for r in there]
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        """One object."""
        self.pulls += 1
        content = self.objects.get(request.object_id, b"")
        late = request.object_id in self.late
        return PullObjectResponse(
            object_found=late or bool(content),
            object_available=not late,
            object_content=b"" if late else content,
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        """Note it."""
        self.confirmed.append(request.message_object_id)

    def answer(self, records: RecordDict) -> None:
        """A node's reply to the first message, handed over as Flower does it."""
        question = message_from_proto(self.asked[0][0])
        question.metadata.__dict__["_message_id"] = self.asked[0][0].metadata.message_id
        reply = Message(records, reply_to=question)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        for number, held in get_all_nested_objects(reply).items():
            self.objects[number] = held.deflate()
        self.replies.append((message_to_proto(remove_content_from_message(reply)), get_object_tree(reply)))

    def arrived(self, place: int = 0) -> bytes:
        """What a node makes of a message that was pushed, by Flower's own code."""
        tree = self.asked[place][1]
        message: Any = inflate_object_from_contents(tree.object_id, dict(self.objects))
        return wire.from_records(message.content)


def _numbers(tree: Any) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _numbers(child)


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(Objects(tmp_path / "objects"))


@pytest.fixture
def grid(link: Link, tmp_path: Path) -> StreamedGrid:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 7, 0, 0
    inside = HttpGrid(token="t")
    inside._client = link
    inside.set_run(Run.create_empty(7))
    made = streamed(inside, tmp_path / "out")
    assert isinstance(made, StreamedGrid)
    return made


@pytest.mark.parametrize("part", list(READ))
def test_flower_is_as_it_was_when_the_grid_was_written(part):
    """Fails with an upgrade: read the part anew, hold `server.streaming` and `server.fetching` against it, then change `READ`."""
    module, name = part
    source = inspect.getsource(getattr(importlib.import_module(module), name))
    assert hashlib.sha256(source.encode()).hexdigest() == READ[part]


def _bytes(count: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def _ask(grid: StreamedGrid, blob: tensors.Blob, node: int = 1) -> str:
    held = dict(parts(blob, mapped=takes_maps(grid)))
    message = Message(wire.to_records(held), node, MessageType.TRAIN, ttl=60.0)
    return next(iter(grid.push_messages([message])))


def test_a_long_question_from_a_mapped_file_arrives_whole_and_its_objects_travel_once(grid, link, tmp_path):
    blob = _bytes(3 * PART + 5)
    pages = tensors.laid_down([blob], tmp_path)
    held = dict(parts(pages, mapped=takes_maps(grid)))
    for node in (1, 2, 3):
        message = Message(wire.to_records(held), node, MessageType.TRAIN, ttl=60.0)
        assert list(grid.push_messages([message])) == [message.metadata.message_id]
        if node == 1:
            first = link.pushes
    assert [link.arrived(place) for place in range(3)] == [blob] * 3
    # A message, its record dictionary and nothing of the model for each further site.
    assert link.pushes - first <= 2 * 3


def test_a_long_reply_is_a_view_of_a_file_and_the_same_bytes(grid, link):
    asked = _ask(grid, _bytes(PART))
    blob = _bytes(2 * PART + 77, seed=2)
    link.answer(wire.to_records(blob))
    (reply,) = grid.pull_messages([asked])
    held = wire.spread(reply.content)[1]
    assert all(isinstance(part, memoryview) and tensors.under(part) is not None for part in held)
    assert b"".join(held) == blob
    assert link.confirmed == [reply.metadata.message_id]
    assert list((grid._folder).iterdir()) == [], (
        "the file has no name, so nothing is left of it after a crash"
    )


def test_a_reply_of_equal_parts_arrives_whole(grid, link):
    """Flower sends equal objects once; a model of zeros has many."""
    asked = _ask(grid, _bytes(2 * PART))
    link.answer(wire.to_records(bytes(3 * PART + 9)))
    (reply,) = grid.pull_messages([asked])
    assert b"".join(wire.spread(reply.content)[1]) == bytes(3 * PART + 9)


def test_an_update_is_judged_where_it_lies(grid, link):
    """Its tensors are views of the file of the reply; none of them is copied on the way to admission."""
    asked = _ask(grid, _bytes(PART))
    weights = np.random.default_rng(3).standard_normal(PART // 2).astype(np.float32)
    update = Update("alder", "run", 1, "sha256:1", "sha256:2", 10, {"w": weights}, Progress(None, None))
    link.answer(wire.to_records(wire.pack(update)))
    (reply,) = grid.pull_messages([asked])
    answer = answer_in(1, reply, 1 << 30)
    assert answer.code == ""
    assert isinstance(answer.message, Update)
    assert tensors.under(answer.message.arrays["w"]) is not None
    assert np.array_equal(answer.message.arrays["w"], weights)


def test_memory_does_not_grow_with_the_model(link, grid, tmp_path):
    """There and back: what is held at once for 32 MiB is what is held for 8."""
    peaks = []
    for count in (2, 8):
        pages = tensors.laid_down([_bytes(count * PART, seed=count)], tmp_path)
        link.asked.clear()
        tracemalloc.start()
        asked = _ask(grid, pages)
        there = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        link.replies.clear()
        link.answer(wire.to_records(bytes(pages)))
        tracemalloc.start()
        (reply,) = grid.pull_messages([asked])
        assert sum(len(part) for part in wire.spread(reply.content)[1]) == count * PART
        peaks.append((there, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    for small, large in zip(*peaks, strict=True):
        assert large < small + MIB


def test_a_reply_that_is_too_long_is_not_fetched_to_its_end(grid, link):
    asked = _ask(grid, b"short")
    link.answer(wire.to_records(_bytes(10 * PART)))
    before = link.pulls
    (reply,) = grid.pull_messages([asked])
    assert answer_in(1, reply, 1 << 30).code == "too-long"
    assert reply.metadata.reply_to_message_id == asked
    assert link.pulls - before < 20, "of the twenty-three and more that it has"
    assert len(link.confirmed) == 1, "and the SuperLink may forget it"


def test_a_reply_that_is_still_on_its_way_is_put_aside(grid, link):
    asked = _ask(grid, _bytes(PART))
    link.answer(wire.to_records(_bytes(PART, seed=5)))
    message = link.replies[0][0].metadata.message_id
    link.late = {message}
    assert list(grid.pull_messages([asked])) == []
    assert list(grid.pull_messages(["another"])) == []
    link.late = set()
    (reply,) = grid.pull_messages([asked])
    assert b"".join(wire.spread(reply.content)[1]) == _bytes(PART, seed=5)
    assert list(grid.pull_messages([asked])) == []


def _with(link: Link, kind: bytes, change: Callable[[bytes], bytes | None]) -> None:
    """Change the first object of a kind, under its number."""
    number = next(n for n in sorted(link.objects) if link.objects[n].startswith(kind))
    changed = change(link.objects[number])
    if changed is None:
        del link.objects[number]
    else:
        link.objects[number] = changed


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        (b"ArrayChunk ", lambda _: None, "no-reply"),
        (b"Array ", lambda _: None, "no-reply"),
        (b"Array ", lambda _: b"Message  2\x00{}", "wire"),
        (b"Array ", lambda held: held.replace(b"[0]", b"[9]"), "wire"),
        (b"ArrayRecord ", lambda _: b"ArrayRecord  2\x00[]", "wire"),
        (b"ArrayRecord ", lambda _: b"Cell  2\x00{}", "wire"),
        (b"RecordDict ", lambda _: b"no head at all", "wire"),
        (b"RecordDict ", lambda held: held.replace(b"consilium", b"something"), "wire"),
    ],
)
def test_a_reply_that_is_none_is_refused_and_the_round_goes_on(grid, link, kind, change, code):
    asked = _ask(grid, _bytes(PART))
    link.objects = Objects(grid._folder.parent / "theirs")
    link.answer(wire.to_records(_bytes(2 * PART)))
    _with(link, kind, change)
    (reply,) = grid.pull_messages([asked])
    assert answer_in(1, reply, 1 << 30).code == code


def test_one_object_again_and_again_is_not_believed(grid, link):
    """A short reply that says of itself that one chunk is in it ten thousand times."""
    asked = _ask(grid, b"short")
    link.objects = Objects(grid._folder.parent / "theirs")
    link.answer(wire.to_records(_bytes(PART)))
    bomb = json.dumps([0] * 10_000).encode()
    _with(link, b"Array ", lambda held: held.replace(b"[0]", bomb))
    (reply,) = grid.pull_messages([asked])
    assert answer_in(1, reply, 1 << 60).code == "too-long"


def test_any_other_grid_is_left_as_it_is(tmp_path):
    assert streamed(other := InProcessGrid([]), tmp_path) is other
    assert not takes_maps(other)
