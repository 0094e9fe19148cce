"""Long messages over Flower's grid: a few megabytes of them in memory at a time, the same bytes at the other end."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from common import tensors, wire
from common.messages import Progress, Update
from common.parts import LARGE, PART, parts
from server.exchange import answer_in, takes_maps
from server.streaming import StreamedGrid, streamed
from simulations.benchmarks.link import Link, Objects
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
    (
        "flwr.supercore.inflatable.inflatable_object",
        "add_header_to_object_body",
    ): "750d1611d693ede5e123ab429f87af55b1c38d542bbf5cdc156c41b0e1b20b7b",
    (
        "flwr.supercore.inflatable.inflatable_protobuf_utils",
        "make_push_object_fn_protobuf",
    ): "bccb55b824604b03b2dbf8dc67a39f614f1d354140a7e6ad87c68a85595d8ab7",
    (
        "flwr.supercore.protobuf.client",
        "ProtobufClient",
    ): "e2206492f910555f45b8ef113767f0ce7fba7324783eea106433f00820817c7b",
    (
        "flwr.supercore.runtime.runtime_http_client",
        "RuntimeHttpClient",
    ): "9d66e89a620521272517c1d0e1703c240b94f9037b012989084901dae9317268",
}
"""Parts of Flower 1.41.0 that the grid was written beside, and the SHA-256 of their source."""


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path / "link")


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
    """Fails with an upgrade: read the part anew, hold `server.streaming`, `server.passing` and `server.fetching` against it, then change `READ`."""
    module, name = part
    source = inspect.getsource(getattr(importlib.import_module(module), name))
    assert hashlib.sha256(source.encode()).hexdigest() == READ[part]


def _bytes(count: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def _ask(grid: StreamedGrid, blob: tensors.Blob, node: int = 1) -> str:
    held = dict(parts(blob, mapped=takes_maps(grid)))
    message = Message(wire.to_records(held), node, MessageType.TRAIN, ttl=60.0)
    return next(iter(grid.push_messages([message])))


def _reply(link: Link, records: RecordDict, elsewhere: Path | None = None) -> None:
    """The first node that was asked replies; its objects lie elsewhere than those of the question, if they are told to."""
    reply = Message(records, reply_to=link.arrived())
    if elsewhere is not None:
        link.objects = Objects(elsewhere)
    link.reply(reply)


def test_a_long_question_from_a_mapped_file_arrives_whole_and_its_objects_travel_once(grid, link, tmp_path):
    blob = _bytes(3 * PART + 5)
    pages = tensors.laid_down([blob], tmp_path)
    held = dict(parts(pages, mapped=takes_maps(grid)))
    for node in (1, 2, 3):
        message = Message(wire.to_records(held), node, MessageType.TRAIN, ttl=60.0)
        assert list(grid.push_messages([message])) == [message.metadata.message_id]
        if node == 1:
            first = link.pushes
    assert [wire.from_records(link.arrived(place).content) for place in range(3)] == [blob] * 3
    # A message, its record dictionary and nothing of the model for each further site.
    assert link.pushes - first <= 2 * 3


def test_a_long_reply_is_a_view_of_a_file_and_the_same_bytes(grid, link):
    asked = _ask(grid, _bytes(PART))
    blob = _bytes(2 * PART + 77, seed=2)
    _reply(link, wire.to_records(blob))
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
    _reply(link, wire.to_records(bytes(3 * PART + 9)))
    (reply,) = grid.pull_messages([asked])
    assert b"".join(wire.spread(reply.content)[1]) == bytes(3 * PART + 9)


def test_an_update_is_judged_where_it_lies(grid, link):
    """Its tensors are views of the file of the reply; none of them is copied on the way to admission."""
    asked = _ask(grid, _bytes(PART))
    weights = np.random.default_rng(3).standard_normal(PART // 2).astype(np.float32)
    update = Update("alder", "run", 1, "sha256:1", "sha256:2", 10, {"w": weights}, Progress(None, None))
    _reply(link, wire.to_records(wire.pack(update)))
    (reply,) = grid.pull_messages([asked])
    answer = answer_in(1, reply, 1 << 30)
    assert answer.code == ""
    assert isinstance(answer.message, Update)
    assert tensors.under(answer.message.arrays["w"]) is not None
    assert np.array_equal(answer.message.arrays["w"], weights)


def test_no_whole_model_is_in_memory(link, grid, tmp_path):
    """There and back: of 60 MiB less than half, which is two pieces of 5 on their way, and what the link makes of them."""
    count = 12
    pages = tensors.laid_down([_bytes(count * PART)], tmp_path)
    tracemalloc.start()
    asked = _ask(grid, pages)
    there = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    _reply(link, wire.to_records(bytes(pages)))
    tracemalloc.start()
    (reply,) = grid.pull_messages([asked])
    assert sum(len(part) for part in wire.spread(reply.content)[1]) == count * PART
    back = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(there, back) < count * PART / 2


def test_a_reply_that_is_too_long_is_not_fetched_to_its_end(grid, link):
    asked = _ask(grid, b"short")
    _reply(link, wire.to_records(_bytes(10 * PART)))
    before = link.pulls
    (reply,) = grid.pull_messages([asked])
    assert answer_in(1, reply, 1 << 30).code == "too-long"
    assert reply.metadata.reply_to_message_id == asked
    assert link.pulls - before < 20, "of the twenty-three and more that it has"
    assert len(link.confirmed) == 1, "and the SuperLink may forget it"


def test_a_reply_that_is_still_on_its_way_is_put_aside(grid, link):
    asked = _ask(grid, _bytes(PART))
    _reply(link, wire.to_records(_bytes(PART, seed=5)))
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
    _reply(link, wire.to_records(_bytes(2 * PART)), grid._folder.parent / "theirs")
    _with(link, kind, change)
    (reply,) = grid.pull_messages([asked])
    assert answer_in(1, reply, 1 << 30).code == code


def test_one_object_again_and_again_is_not_believed(grid, link):
    """A short reply that says of itself that one chunk is in it ten thousand times."""
    asked = _ask(grid, b"short")
    _reply(link, wire.to_records(_bytes(LARGE)), grid._folder.parent / "theirs")
    bomb = json.dumps([0] * 10_000).encode()
    _with(link, b"Array ", lambda held: held.replace(b"[0]", bomb))
    (reply,) = grid.pull_messages([asked])
    assert answer_in(1, reply, 1 << 60).code == "too-long"


def test_any_other_grid_is_left_as_it_is(tmp_path):
    assert streamed(other := InProcessGrid([]), tmp_path) is other
    assert not takes_maps(other)


def test_a_question_that_the_superlink_does_not_take_is_one_that_was_not_sent(grid, link):
    """It refuses an object that it was handed already: its first answer came after the time-out, say. No run ends of that."""
    link.refused = 1
    assert _ask(grid, _bytes(PART)) == ""
    assert _ask(grid, _bytes(PART)) == link.asked[-1][0].metadata.message_id
