"""One object on its way between the server and Flower's SuperLink, over HTTP, without a second copy of it in memory.

Flower's client makes an object of a message of its type, and that to bytes, before the first of them leaves, and has an answer
three times over before its content can be read: 20 to 30 MiB for a piece of 5. Here an object leaves portion by portion
from where it lies, and what comes is held once. The requests are Flower's to the byte, but for the order of two fields, and so are
their headers, the errors and how often a request is tried again: all of that is asked of Flower's own client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import InflatableObject
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.protobuf.client import ProtobufClient, ProtobufRequestContext
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from common.tensors import Buffer, give_back, portions

if TYPE_CHECKING:
    import httpx

_PORTION: Final = 1 << 18
"""Bytes handed to the network at once: it makes a copy of what it could not send."""
_SHORT: Final = 1 << 16
"""A content of more bytes is given as a bytearray, which can all that is asked of it here."""
_TAG: Final = 3
_KIND: Final = 7
_LENGTH_DELIMITED: Final = 2
"""Of protobuf's wire format: a field is its number, and in the lowest three bits its kind; 0 is a number, 2 bytes."""
_VARINT: Final = 7


class Passing(Protocol):
    """The way of objects to the SuperLink and back."""

    def push(self, number: str, held: InflatableObject, session: str) -> None:
        """Hand over an object.

        Raises:
            ObjectPushError: it is not taken.
        """

    def pull(self, number: str) -> bytes:
        """An object's content.

        Raises:
            ObjectUnavailableError: it has not come yet.
            ObjectPullError: it never will be there.
        """


def passing(client: Any, node: Any, run: int) -> Passing:
    """Of a client over HTTP as described above, of any other as Flower does it.

    Args:
        client: of the Runtime API.
        node: who speaks, as Flower's protobuf message.
        run: number of the run.
    """
    return (_OverHttp if isinstance(client, ProtobufClient) else _ByFlower)(client, node, run)


def name_chunks(array: Array) -> None:
    """Let an array know its chunks and their numbers; what Flower does itself, with every chunk in memory twice."""
    whole = memoryview(array.data)
    chunks: list[tuple[str, InflatableObject]] = []
    for begin in range(0, len(whole), FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE):
        chunk = ArrayChunk(whole[begin : begin + FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE])
        number = hashlib.sha256()
        for part in content_of(chunk):
            for portion in portions(part):
                number.update(portion)
        chunks.append((number.hexdigest(), chunk))
    array.__dict__["_chunks"] = chunks


def content_of(held: InflatableObject) -> tuple[Buffer, ...]:
    """An object as Flower deflates it, a chunk of an array with its bytes where they lie."""
    if held.__class__ is not ArrayChunk:
        return (held.deflate(),)
    head = HEAD_VALUE_DIVIDER.join((ArrayChunk.__qualname__, "", str(len(held.data))))
    return (head.encode() + HEAD_BODY_DIVIDER, held.data)


@dataclass(frozen=True)
class _ByFlower:
    """Flower's own way."""

    client: Any
    node: Any
    run: int

    def push(self, number: str, held: InflatableObject, session: str) -> None:
        make_push_object_fn_protobuf(self.client.PushObject, self.node, self.run, session)(
            number, b"".join(content_of(held))
        )

    def pull(self, number: str) -> bytes:
        return make_pull_object_fn_protobuf(self.client.PullObject, self.node, self.run)(number)


class _OverHttp(_ByFlower):
    """Portion by portion, with Flower's client for all else."""

    def push(self, number: str, held: InflatableObject, session: str) -> None:
        parts = content_of(held)

        def put(request: PushObjectRequest) -> PushObjectResponse:
            length = sum(len(part) for part in parts)
            field = PushObjectRequest.OBJECT_CONTENT_FIELD_NUMBER << _TAG | _LENGTH_DELIMITED
            head = request.SerializeToString(deterministic=True) + _varint(field) + _varint(length)
            body = self._posted("PushObject", request, (head, *parts))
            return PushObjectResponse(
                stored=bool(parted(body)[0].get(PushObjectResponse.STORED_FIELD_NUMBER))
            )

        # Flower's own function asks and judges; the content goes beside what it asks.
        make_push_object_fn_protobuf(put, self.node, self.run, session)(number, b"")

    def pull(self, number: str) -> bytes:
        found = [b""]

        def get(request: PullObjectRequest) -> PullObjectResponse:
            body = self._posted("PullObject", request, (request.SerializeToString(deterministic=True),))
            said, found[0] = parted(body)
            return PullObjectResponse(
                object_found=bool(said.get(PullObjectResponse.OBJECT_FOUND_FIELD_NUMBER)),
                object_available=bool(said.get(PullObjectResponse.OBJECT_AVAILABLE_FIELD_NUMBER)),
            )

        make_pull_object_fn_protobuf(get, self.node, self.run)(number)
        return found[0]

    def _posted(self, method: str, message: Any, parts: tuple[Buffer, ...]) -> bytearray:
        """The body of the answer to a request."""
        path = {"PushObject": "push-object", "PullObject": "pull-object"}[method]
        inner: httpx.Client = self.client._client  # noqa: SLF001 - Flower's client, here and below: what this module is for

        def send() -> bytearray:
            request = inner.build_request(
                "POST",
                f"{self.client._base_url}/v1/runtime/{path}",  # noqa: SLF001
                content=_Portions(parts),
                headers={
                    "content-type": PROTOBUF_MEDIA_TYPE,
                    "accept": PROTOBUF_MEDIA_TYPE,
                    "accept-encoding": "identity",
                    "content-length": str(sum(len(part) for part in parts)),
                },
            )
            context = ProtobufRequestContext(f"/flwr.proto.Runtime/{method}", message, request)
            with closing(self.client._send(context, stream=True)) as response:  # noqa: SLF001
                response.raise_for_status()
                # Flower waits for the rest of a stream without end.
                request.extensions["timeout"]["read"] = inner.timeout.read
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
            return body

        again = self.client._retry_invoker  # noqa: SLF001
        result: bytearray = send() if again is None else again.invoke(send)
        return result


class _Portions:
    """Bytes for the network, some at a time; from their beginning each time they are sent."""

    def __init__(self, parts: Iterable[Buffer]) -> None:
        self._parts = tuple(parts)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            whole = memoryview(part)
            for begin in range(0, len(whole), _PORTION):
                yield bytes(whole[begin : begin + _PORTION])
                give_back(whole)


def parted(body: bytearray) -> tuple[dict[int, int], bytes]:
    """A protobuf message of numbers, and of bytes at its end: the numbers by their fields, and the bytes.

    Args:
        body: is used up where there are bytes.

    Raises:
        ValueError: it is no such message.
    """
    numbers: dict[int, int] = {}
    place = 0
    try:
        while place < len(body):
            key, after = _read(body, place)
            value, place = _read(body, after)
            if key & _KIND == _LENGTH_DELIMITED:
                if place + value != len(body):
                    raise ValueError("length")
                del body[:place]  # of its beginning a bytearray lets go without a copy
                return numbers, bytes(body) if value <= _SHORT else cast("bytes", body)
            if key & _KIND:
                raise ValueError("field")
            numbers[key >> _TAG] = value
    except IndexError:
        raise ValueError("length") from None
    return numbers, b""


def _varint(number: int) -> bytes:
    """As protobuf writes a number: seven bits a byte, the lowest first."""
    said = bytearray()
    while number >> _VARINT:
        said.append(number & 0x7F | 0x80)
        number >>= _VARINT
    said.append(number)
    return bytes(said)


def _read(body: bytearray, place: int) -> tuple[int, int]:
    """A number, and the place after it."""
    number = shift = 0
    while body[place] & 0x80:
        number |= (body[place] & 0x7F) << shift
        shift, place = shift + _VARINT, place + 1
    return number | body[place] << shift, place + 1
