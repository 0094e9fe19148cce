"""Flower's Grid over HTTP, with long messages moved between a mapped file and the wire a few megabytes at a time.

Flower's own takes a message apart and puts it together in memory: two to three copies of a model at once, and with
several replies several more. Here one object is in memory at a time:

1. What goes out leaves portion by portion from the mapped file in which the question lies (`server.passing`).
2. What comes in is written to a nameless file as it comes; the arrays of a reply are views of it. A reply that is longer
   than any answer may be is not fetched to its end.

It speaks the same Runtime API with the same client as the grid inside, `flwr.superlink.grid.http_grid` of Flower 1.41;
`tests/server/test_streaming.py` holds what it assumes of that.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from flwr.app import Array, Message, Metadata
from flwr.app.error import Error
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    ObjectUnavailableError,
)

from common.again import sooner
from common.errors import StorageError
from common.logs import Log
from server.around import Around
from server.arriving import Announced, Arriving
from server.exchange import MALFORMED, TOO_LONG, most_bytes
from server.fetching import Fetching, TooLong
from server.passing import Passing, name_chunks, passing

if TYPE_CHECKING:
    from flwr.superlink.grid.http_grid import HttpGrid

_LOG: Final = Log("server.streaming")
_TOGETHER: Final = 2
"""Objects on their way at once: while one is taken in, the next is made ready."""
_LAST_S: Final = 30.0
"""How long the one object is waited for that may still be on its way when a reply counts as come."""
_POLL_S: Final = 0.05


def streamed(grid: Grid, folder: Path) -> Grid:
    """The grid over which a run speaks: one over HTTP in this way, any other as it is.

    Args:
        grid: as Flower gives it.
        folder: for nameless files with replies; made where it is not there.
    """
    # Whoever has such a grid has loaded its module; to load it for others takes most of a second.
    http = sys.modules.get("flwr.superlink.grid.http_grid")
    if not http or not isinstance(grid, http.HttpGrid):
        return grid
    sooner()
    return StreamedGrid(cast("HttpGrid", grid), folder)


class StreamedGrid(Around["HttpGrid"]):
    """A grid over HTTP that holds no whole model."""

    takes_maps: Final = True

    def __init__(self, grid: HttpGrid, folder: Path) -> None:
        super().__init__(grid)
        self._folder = folder
        self._most = most_bytes(0)
        self._arriving = Arriving(self._pull)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to the SuperLink; gives the id of each, or an empty one for what it does not take."""
        return [self._taken(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """The replies that are there with all they are made of, each fetched when it is asked for.

        Raises:
            StorageError: when the disk is full or the folder cannot be written.
        """
        numbers = list(message_ids)
        # The SuperLink forgets a question once it has announced the reply, and says of the next look that both are lost.
        unheard = [number for number in numbers if not self._arriving.expects(number)]
        announced: Iterable[Announced] = ()
        if unheard:
            found = self._client.PullMessages(PullAppMessagesRequest(message_ids=unheard))
            announced = zip(found.messages_list, found.message_object_trees, strict=True)
        for proto, tree in self._arriving.whole(numbers, announced):
            asked, number = proto.metadata.reply_to_message_id, proto.metadata.message_id
            try:
                reply = self._pulled(tree, asked)
            except ObjectPullError:
                yield self._error(asked, ErrorCode.MESSAGE_UNAVAILABLE)
                continue
            self._client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self._grid.node, run_id=self.run.run_id, message_object_id=number
                )
            )
            reply.metadata.__dict__["_message_id"] = number
            yield reply

    @property
    def _client(self) -> Any:
        return self._grid._runtime_client  # noqa: SLF001 - what this module is for

    @property
    def _passing(self) -> Passing:
        return passing(self._client, self._grid.node, self.run.run_id)

    def _taken(self, message: Message) -> str:
        """A message that the SuperLink does not take to its end is one that was not sent: its site is asked again.

        It refuses an object that it has, which it is handed twice where its first answer came too late.
        """
        try:
            return self._pushed(message)
        except ObjectPushError:
            _LOG.warning("question.untaken", round=int(message.metadata.group_id or 0))
            return ""

    def _pushed(self, message: Message) -> str:
        with no_object_id_recompute():
            for array in _held(message):
                if "_chunks" not in array.__dict__:
                    name_chunks(array)
            message.metadata.__dict__["_message_id"] = message.object_id
            objects: dict[str, InflatableObject] = {}
            tree = _tree(message.object_id, message, objects)
        said = self._client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(message))],
                message_object_trees=[tree],
            )
        )
        way, wanted = self._passing, set(said.objects_to_push)
        with ThreadPoolExecutor(_TOGETHER) as threads:
            missing = [(number, held) for number, held in objects.items() if number in wanted]
            for _ in threads.map(lambda one: way.push(one[0], one[1], said.session_id), missing):
                pass
        self._most = max(self._most, most_bytes(sum(len(array.data) for array in _held(message))))
        return str(said.message_ids[0]) if said.message_ids and said.message_ids[0] else ""

    def _pulled(self, tree: ObjectTree, asked: str) -> Message:
        """A reply, or an error where it is too long or none."""
        until = time.monotonic() + _LAST_S

        def fetch(number: str) -> bytes:
            # Flower's own function for it keeps what it fetched until the collector of garbage comes by.
            while True:
                try:
                    return self._pull(number)
                except ObjectUnavailableError:
                    if time.monotonic() > until:
                        raise ObjectPullError(number, "it did not come") from None
                time.sleep(_POLL_S)

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                return Fetching(fetch, file, self._most).message(tree.object_id)
        except TooLong:
            return self._error(asked, TOO_LONG)
        except ValueError:
            return self._error(asked, MALFORMED)
        except OSError:
            raise StorageError(
                self._folder.name, "it cannot be written", "Check free space and rights"
            ) from None

    def _pull(self, number: str) -> bytes:
        """An object's content; raises where it is not there yet, or never will be."""
        return self._passing.pull(number)

    def _error(self, asked: str, code: int) -> Message:
        """An error in place of a reply, as the grid inside makes one."""
        ours = self._grid.node.node_id
        metadata = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=ours,
            dst_node_id=ours,
            reply_to_message_id=asked,
            group_id="",
            created_at=now().timestamp(),
            ttl=0,
            message_type=SYSTEM_MESSAGE_TYPE,
        )
        return make_message(metadata, error=Error(code))


def _tree(number: str, held: InflatableObject, objects: dict[str, InflatableObject]) -> ObjectTree:
    """What belongs to a message, as a tree of numbers; `objects` is filled with it, children first."""
    children = [_tree(child, below, objects) for child, below in (held.children or {}).items()]
    objects[number] = held
    return ObjectTree(object_id=number, children=children)


def _held(message: Message) -> list[Array]:
    return [array for record in message.content.array_records.values() for array in record.values()]
