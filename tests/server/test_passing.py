"""Objects to and from a SuperLink over real HTTP: Flower's own requests and answers, and never a second copy in memory."""

from __future__ import annotations

import http.server
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    ObjectUnavailableError,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from hypothesis import given
from hypothesis import strategies as st

from common import tensors
from common.parts import PART, array_of
from server.passing import Passing, content_of, name_chunks, parted, passing

MIB = 1 << 20
RUN, NODE, SESSION = 7, Node(node_id=1), "s" * 32


@dataclass
class Asked:
    """One request as it came: where to, with what head, and its body in a file."""

    path: str
    headers: dict[str, str]
    body: Path


@dataclass
class Answers:
    """What the SuperLink in these tests says: a file to each request, in their order, and the last one from then on."""

    folder: Path
    answers: list[tuple[int, Path]] = field(default_factory=list)
    torn: int = 0
    """So many of the next answers break off in their middle."""
    silent: threading.Event | None = None
    """The next answer stops in its middle until then, and its connection stays open."""
    asked: list[Asked] = field(default_factory=list)

    def says(self, *messages: Any, status: int = 200) -> None:
        for message in messages:
            path = self.folder / f"answer-{len(self.answers)}"
            path.write_bytes(message.SerializeToString())
            self.answers.append((status, path))


def _handler(answers: Answers) -> type[http.server.BaseHTTPRequestHandler]:
    """Reads and writes 64 KiB at a time, so that what is in memory is not the server's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = answers.folder / f"asked-{len(answers.asked)}"
            left = int(self.headers["content-length"])
            with body.open("wb") as file:
                while left:
                    part = self.rfile.read(min(left, 1 << 16))
                    left -= file.write(part)
            answers.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, path = answers.answers.pop(0) if len(answers.answers) > 1 else answers.answers[0]
            self.send_response(status)
            length = path.stat().st_size
            self.send_header("content-length", str(length))
            self.end_headers()
            silent, answers.silent = answers.silent, None
            if silent or answers.torn:
                answers.torn -= not silent
                length //= 2
                self.close_connection = True
            with path.open("rb") as file:
                while length:
                    length -= self.wfile.write(file.read(min(length, 1 << 16)))
            if silent:
                self.wfile.flush()
                silent.wait(300)

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    return Handler


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return Answers(tmp_path)


@pytest.fixture
def client(answers: Answers) -> Iterator[RuntimeHttpClient]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers))
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    made = RuntimeHttpClient.from_server_address(
        f"127.0.0.1:{server.server_port}",
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
            RuntimeTokenHttpInterceptor(token="token"),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    yield made
    made.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def way(client: RuntimeHttpClient) -> Passing:
    return passing(client, NODE, RUN)


def _chunk(folder: Path, count: int = PART) -> ArrayChunk:
    """Bytes in a mapped file."""
    return ArrayChunk(memoryview(tensors.laid_down([np.random.default_rng(1).bytes(count)], folder)))


def test_what_is_pushed_is_flowers_request(way, client, answers, tmp_path):
    """Beside what Flower's own client sends: the same message to the same place with the same words."""
    answers.says(PushObjectResponse(stored=True))
    chunk = _chunk(tmp_path, 300_000)
    content = chunk.deflate()
    number = get_object_id(content)
    way.push(number, chunk, SESSION)
    request = PushObjectRequest(
        node=NODE, run_id=RUN, object_id=number, object_content=content, session_id=SESSION
    )
    client.PushObject(request)
    ours, flowers = answers.asked
    assert PushObjectRequest.FromString(ours.body.read_bytes()) == request
    assert ours.path == flowers.path
    # What is not of the connection; compressed answers are not wanted.
    for name in set(flowers.headers) - {"accept-encoding"}:
        assert ours.headers[name] == flowers.headers[name], name


def test_what_is_pulled_is_flowers_request_and_the_content(way, client, answers):
    for count in (0, 10, 1 << 16, PART + 50):
        content = b"ArrayChunk  %d\0" % count + bytes(count)
        answers.says(PullObjectResponse(object_found=True, object_available=True, object_content=content))
        assert way.pull("n" * 64) == content
        answers.answers.clear()
    answers.says(PullObjectResponse(object_found=True, object_available=True, object_content=b"it"))
    client.PullObject(PullObjectRequest(node=NODE, run_id=RUN, object_id="n" * 64))
    ours, flowers = answers.asked[-2:]
    assert ours.body.read_bytes() == flowers.body.read_bytes()
    assert ours.path == flowers.path


def test_a_refusal_and_what_is_not_there_are_told_apart(way, answers, tmp_path):
    answers.says(PushObjectResponse(stored=False), PullObjectResponse(object_found=True))
    answers.says(PullObjectResponse(object_found=False))
    with pytest.raises(ObjectPushError):
        way.push("n" * 64, _chunk(tmp_path, 10), SESSION)
    with pytest.raises(ObjectUnavailableError):
        way.pull("n" * 64)
    with pytest.raises(ObjectPullError):
        way.pull("n" * 64)


def test_an_answer_that_breaks_off_is_asked_for_again(way, answers, tmp_path):
    """A SuperLink that is killed while it sends, or is only starting: what comes in the end is whole."""
    content = np.random.default_rng(2).bytes(MIB)
    answers.says(PullObjectResponse(), status=503)
    answers.says(PullObjectResponse(object_found=True, object_available=True, object_content=content))
    answers.torn = 2
    assert way.pull("n" * 64) == content
    assert len(answers.asked) > 2
    answers.answers.clear()
    answers.asked.clear()
    answers.says(PushObjectResponse(), status=503)
    answers.says(PushObjectResponse(stored=True))
    way.push("n" * 64, _chunk(tmp_path), SESSION)
    first, second = (asked.body.read_bytes() for asked in answers.asked)
    assert first == second


def test_an_answer_that_stops_in_its_middle_is_asked_for_again(way, client, answers):
    """A SuperLink that stands still is no reason to stand still as well, once it is there again."""
    content = np.random.default_rng(4).bytes(MIB)
    answers.says(PullObjectResponse(object_found=True, object_available=True, object_content=content))
    answers.silent = until = threading.Event()
    client._client.timeout = 1.0
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(way.pull("n" * 64)))
    thread.start()
    thread.join(120)
    came = len(found)
    until.set()
    thread.join()
    assert came == 1, "it waited for the rest without end"
    assert found == [content]


def test_a_piece_is_in_memory_once_when_it_comes_and_not_at_all_when_it_goes(way, answers, tmp_path):
    """A copy more anywhere in this is 5 MiB; with Flower's own client it is 20 and more in either direction."""
    answers.says(PushObjectResponse(stored=True))
    chunk = _chunk(tmp_path)
    way.push("n" * 64, ArrayChunk(memoryview(b"")), SESSION)  # imports, connection, buffers
    tracemalloc.start()
    way.push("n" * 64, chunk, SESSION)
    assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    tracemalloc.stop()
    answers.answers.clear()
    answers.says(PullObjectResponse(object_found=True, object_available=True, object_content=chunk.deflate()))
    tracemalloc.start()
    content = way.pull("n" * 64)
    assert tracemalloc.get_traced_memory()[1] < PART + 3 * MIB
    tracemalloc.stop()
    assert content == chunk.deflate()


@pytest.mark.parametrize("count", [1, 1000, PART, 2 * PART + 3])
def test_chunks_are_named_as_flower_names_them(count, tmp_path):
    blob = np.random.default_rng(3).bytes(count)
    ours = array_of(memoryview(tensors.laid_down([blob], tmp_path)))
    name_chunks(ours)
    flowers = array_of(blob)
    assert [number for number, _ in ours.slice_array()] == [number for number, _ in flowers.slice_array()]
    assert ours.object_id == flowers.object_id
    for _, chunk in ours.slice_array():
        assert b"".join(content_of(chunk)) == chunk.deflate()


def test_any_other_object_is_as_flower_deflates_it():
    array = Array(np.arange(10))
    assert content_of(array) == (array.deflate(),)


@given(st.booleans(), st.booleans(), st.binary(max_size=300))
def test_an_answer_is_read_as_protobuf_reads_it(found, available, content):
    said = PullObjectResponse(object_found=found, object_available=available, object_content=content)
    numbers, held = parted(bytearray(said.SerializeToString()))
    assert (bool(numbers.get(1)), bool(numbers.get(2)), held) == (found, available, content)


@given(st.binary(max_size=60))
def test_an_answer_that_is_none_is_refused_by_name_and_ends(body):
    """Whatever the bytes: numbers and bytes, or `ValueError`."""
    try:
        numbers, held = parted(bytearray(body))
    except ValueError:
        return
    assert all(number >= 0 for number in numbers.values())
    assert len(held) <= len(body)


def test_an_answer_that_is_short_of_its_content_is_none():
    said = PullObjectResponse(object_found=True, object_available=True, object_content=b"x" * 200)
    whole = said.SerializeToString()
    for end in (len(whole) - 1, 6, 5, 1):
        with pytest.raises(ValueError):
            parted(bytearray(whole[:end]))
    with pytest.raises(ValueError):
        parted(bytearray(whole + b"\x08\x01"))
