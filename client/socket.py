"""The socket between courier and site service: gRPC on a Unix socket, bytes in, bytes out.

There is one method, because a message says itself what it asks for, and one by which a node asks whether a bundle
may run. The socket's file is readable by its owner only. Standard gRPC health checking tells a supervisor whether the service is up.

Who may open the socket runs code that others sent, and the service must not die of what is pushed through it: a question
comes in pieces, and all questions that are taken in or worked on share one room in memory. What finds none is turned away.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.errors import FederationError
from common.logs import Log, unforeseen
from common.types import Digest

_LOG: Final = Log("client.socket")
SERVICE: Final = "consilium.SiteService"
METHOD: Final = f"/{SERVICE}/Answer"
APPROVED: Final = f"/{SERVICE}/Approved"
ROOM: Final = 1 << 30
"""Bytes of all questions together: twice a model of 100 million parameters, and as much as an answer may have."""
_PIECE: Final = 1 << 20
_CALLS: Final = 16
"""At once; a courier and a node have a few."""
_SERVER: Final = (
    ("grpc.max_receive_message_length", _PIECE + 1024),
    ("grpc.max_send_message_length", ROOM),
    ("grpc.max_concurrent_streams", _CALLS),
    # Else gRPC takes ever more in before anybody reads it, for the sake of speed over long ways.
    ("grpc.http2.bdp_probe", 0),
)
_CLIENT: Final = (("grpc.max_receive_message_length", ROOM), ("grpc.max_send_message_length", ROOM))
_YES, _NO = b"yes", b"no"
_THREADS: Final = 8
"""One for the work, the others take in, answer `busy` and health checks meanwhile."""


class Answering(Protocol):
    """What is served: the site service, or anything that answers bytes with bytes."""

    def answer(self, blob: bytes) -> bytes:
        """The reply to an instruction, both as `common.wire` bytes."""


@runtime_checkable
class Approving(Protocol):
    """What can be asked by a node."""

    def approved(self, digest: Digest) -> bool:
        """Whether a bundle of this digest may run here."""


class _Room:
    """How many bytes may be held by all calls together."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether there was room for so many more; then it is taken."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give(self, count: int) -> None:
        """Give room back."""
        with self._lock:
            self._left += count


def serve(service: Answering, path: Path, room: int = ROOM) -> grpc.Server:
    """Serve on `path` until the returned server is stopped.

    Args:
        service: what answers.
        path: of the socket.
        room: bytes of all questions together that may lie in memory at once.

    Raises:
        FederationError: code `socket` when the socket cannot be made there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_SERVER, maximum_concurrent_rpcs=_CALLS)
    methods = {"Answer": grpc.stream_unary_rpc_method_handler(_taking_in(_answering(service.answer), room))}
    if isinstance(service, Approving):
        methods["Approved"] = grpc.unary_unary_rpc_method_handler(_answering(_approving(service)))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    status = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
        server.start()
    except RuntimeError:
        raise FederationError(
            path.name,
            "the socket cannot be made",
            "Check folder, rights and length of the path",
            code="socket",
        ) from None
    finally:
        os.umask(before)
    status.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    return server


def call(path: Path, blob: bytes, timeout_s: float) -> bytes:
    """Hand bytes to the service behind `path` and wait for its reply.

    Raises:
        FederationError: code `timeout`, or `no-service` when nobody answers there.
    """
    pieces = (blob[first : first + _PIECE] for first in range(0, len(blob), _PIECE))
    return _called(path, lambda channel: channel.stream_unary(METHOD)(pieces, timeout=timeout_s))


def approved(path: Path, digest: Digest, timeout_s: float = 5.0) -> bool:
    """Whether the service behind `path` lets a bundle of this digest run.

    Raises:
        FederationError: code `timeout`, or `no-service` when nobody answers there.
    """
    asked = digest.encode()
    return _called(path, lambda channel: channel.unary_unary(APPROVED)(asked, timeout=timeout_s)) == _YES


def _called(path: Path, ask: Callable[[grpc.Channel], bytes]) -> bytes:
    with grpc.insecure_channel(f"unix:{path}", options=_CLIENT) as channel:
        try:
            reply = ask(channel)
        except grpc.RpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            raise FederationError(
                "site service",
                "it did not answer in time" if late else "nobody answers at its socket",
                "Look at its log and restart it",
                code="timeout" if late else "no-service",
            ) from None
    return reply


def healthy(path: Path, timeout_s: float = 1.0) -> bool:
    """Whether a service behind `path` says that it serves."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _approving(service: Approving) -> Callable[[bytes], bytes]:
    return lambda blob: _YES if service.approved(Digest(blob.decode("ascii", "replace"))) else _NO


def _taking_in(
    answering: Callable[[bytes, Any], bytes], size: int
) -> Callable[[Iterator[bytes], Any], bytes]:
    """A question from its pieces, as long as there is room for them; the room is held until it is answered."""
    room = _Room(size)

    def answer(pieces: Iterator[bytes], context: Any) -> bytes:
        whole = io.BytesIO()
        try:
            for piece in pieces:
                if not room.take(len(piece)):
                    _LOG.warning("socket.full")
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
                whole.write(piece)
            return answering(whole.getvalue(), context)
        finally:
            room.give(whole.tell())

    return answer


def _answering(answering: Callable[[bytes], bytes]) -> Callable[[bytes, Any], bytes]:
    def answer(blob: bytes, context: Any) -> bytes:
        try:
            return answering(blob)
        except Exception as error:  # noqa: BLE001 - gRPC would send the exception's text over the socket
            unforeseen(_LOG, "socket.failed", error)
        context.abort(grpc.StatusCode.INTERNAL, "internal")
        return b""

    return answer
