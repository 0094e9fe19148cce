"""Flower's SuperLink as a server's grid sees it, with everything on disk and every node's work in a process of its own.

It stands where `flwr.supercore.runtime.RuntimeHttpClient` stands in a `HttpGrid`, or behind one in a process of its own
(`served`): what a server holds in memory while it speaks with it is the server's own, and none of the SuperLink's or the hospitals'.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectResponse,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import GetNodesResponse, PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from common.errors import FederationError

_HOST: Final = "127.0.0.1"
Answer = Callable[[Message], Message]
"""What a node makes of a question."""


class Objects(MutableMapping[str, bytes]):
    """Objects by their numbers, each in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)

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
        return sum(1 for _ in self)


def numbers_in(tree: ObjectTree) -> Iterator[str]:
    """Every object of a message."""
    yield tree.object_id
    for child in tree.children:
        yield from numbers_in(child)


@dataclass
class Link:
    """Flower's Runtime API as far as a grid speaks it: objects by their SHA-256, messages as trees of them.

    Args:
        folder: empty, for everything.
        nodes: numbers of those that are there.
        answer: carried out in a forked process for each question, when the server looks for replies; without one a
            reply is handed over by `reply`.
    """

    folder: Path
    nodes: tuple[int, ...] = ()
    answer: Answer | None = None
    asked: list[tuple[Any, Any]] = field(default_factory=list)
    replies: list[tuple[Any, Any]] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    late: set[str] = field(default_factory=set)
    """Objects that are named and not there yet."""
    refused: int = 0
    """So many of the next objects are not taken."""
    pushes: int = 0
    pulls: int = 0
    objects: Objects = field(init=False)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.objects = Objects(self.folder / "objects")

    def GetNodes(self, request: Any) -> Any:  # noqa: N802 - Flower's name, as those below
        """Who is there."""
        del request
        return GetNodesResponse(nodes=[NodeInfo(node_id=number) for number in self.nodes])

    def PushMessages(self, request: Any) -> Any:  # noqa: N802
        """Take messages, and say which objects of theirs are not here yet."""
        self.asked += zip(request.messages_list, request.message_object_trees, strict=True)
        wanted = {number for tree in request.message_object_trees for number in numbers_in(tree)}
        return PushAppMessagesResponse(
            message_ids=[message.metadata.message_id for message in request.messages_list],
            objects_to_push=sorted(number for number in wanted if number not in self.objects),
            session_id="s",
        )

    def PushObject(self, request: Any) -> Any:  # noqa: N802
        """Take an object, if it is what its number says."""
        if self.refused:
            self.refused -= 1
            return PushObjectResponse(stored=False)
        stored = hashlib.sha256(request.object_content).hexdigest() == request.object_id
        if stored:
            self.objects[request.object_id] = request.object_content
        self.pushes += 1
        return PushObjectResponse(stored=stored)

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        """The replies to these messages that are there, each named once."""
        if self.answer is not None:
            self._work(set(request.message_ids))
        there = [r for r in self.replies if r[0].metadata.reply_to_message_id in request.message_ids]
        self.replies = [r for r in self.replies if r not in there]
        return PullAppMessagesResponse(
            messages_list=[r[0] for r in there], message_object_trees=[r[1] for r in there]
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        """One object."""
        self.pulls += 1
        if request.object_id in self.late:
            return PullObjectResponse(object_found=True, object_available=False)
        content = self.objects.get(request.object_id, b"")
        return PullObjectResponse(object_found=bool(content), object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> Any:  # noqa: N802
        """A reply was fetched."""
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()

    def arrived(self, place: int = 0) -> Message:
        """What a node makes of a message that was pushed, by Flower's own code."""
        proto, tree = self.asked[place]
        contents = {number: self.objects[number] for number in set(numbers_in(tree))}
        message: Any = inflate_object_from_contents(tree.object_id, contents)
        message.metadata.__dict__["_message_id"] = proto.metadata.message_id
        found: Message = message
        return found

    def reply(self, message: Message) -> tuple[Any, Any]:
        """A node's reply, handed over as Flower does it; gives it without its content, and its tree."""
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            for number, held in get_all_nested_objects(message).items():
                self.objects[number] = held.deflate()
            said = (message_to_proto(remove_content_from_message(message)), get_object_tree(message))
        self.replies.append(said)
        return said

    def _work(self, wanted: set[str]) -> None:
        """Let one of those who were asked and whose reply is looked for answer, in a process of its own."""
        for place, (proto, _tree) in enumerate(self.asked):
            if proto.metadata.message_id not in wanted:
                continue
            said = self.folder / proto.metadata.message_id
            child = os.fork()
            if child == 0:
                self._answered(place, said)
            status = os.waitpid(child, 0)[1]
            if status:
                raise FederationError("node", "it did not answer", "Read what it said", code="bench")
            message, tree = ProtoMessage(), ObjectTree()
            message.ParseFromString(said.with_suffix(".message").read_bytes())
            tree.ParseFromString(said.with_suffix(".tree").read_bytes())
            self.replies.append((message, tree))
            del self.asked[place]
            return

    def _answered(self, place: int, said: Path) -> None:
        """In a child: answer, leave the reply on disk, and end."""
        status = 1
        try:
            if self.answer is not None:
                message, tree = self.reply(self.answer(self.arrived(place)))
                said.with_suffix(".message").write_bytes(message.SerializeToString())
                said.with_suffix(".tree").write_bytes(tree.SerializeToString())
                status = 0
        finally:
            os._exit(status)


@contextmanager
def served(link: Link) -> Iterator[str]:
    """The same in a process of its own, spoken to over HTTP as Flower's SuperLink is; gives host and port.

    Args:
        link: of which this process has a copy that learns nothing more.
    """
    with socket.create_server((_HOST, 0)) as listening:
        child = os.fork()
        if child == 0:
            _serve(link, listening)
        try:
            yield f"{_HOST}:{listening.getsockname()[1]}"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _serve(link: Link, listening: socket.socket) -> None:
    """In a child: answer until it is ended, or left behind."""
    parent = os.getppid()

    class Server(ThreadingHTTPServer):
        def service_actions(self) -> None:
            if os.getppid() != parent:
                os._exit(1)

    server = Server((_HOST, 0), _handler(link), bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    try:
        server.serve_forever()
    finally:
        os._exit(1)


def _handler(link: Link) -> type[BaseHTTPRequestHandler]:
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = PROTOBUF_REQUEST_TYPES[("POST", self.path)]()
            asked.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            name = "".join(word.title() for word in self.path.rpartition("/")[2].split("-"))
            with turn:
                said = getattr(link, name)(asked).SerializeToString()
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    return Handler
