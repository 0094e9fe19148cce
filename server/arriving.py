"""Replies that were announced and are still on their way: nobody waits for one while others could be heard.

Flower's SuperLink hands a reply out as soon as a node has begun to send it, and whoever fetches it waits for what is
missing: three minutes, where the node was killed while it sent. Here a reply counts as come when its last object has.
Until then the server goes on listening; a node that is there again says so and is asked again (`server.asking`).

Flower sends an object after those it is made of, two at a time, so that the message itself comes last but for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flwr.proto.message_pb2 import Message, ObjectTree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError

Announced = tuple[Message, ObjectTree]
"""A reply's envelope, and the numbers of what it is made of."""


class Arriving:
    """Of the replies that the SuperLink announced, those that are not all there; each is announced once only.

    Args:
        fetch: gives an object's content by its number.
    """

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self._fetch = fetch
        self._waiting: dict[str, list[Announced]] = {}

    def expects(self, number: str) -> bool:
        """Whether a reply to this question was announced and is not all there."""
        return number in self._waiting

    def whole(self, asked: Iterable[str], announced: Iterable[Announced]) -> Iterator[Announced]:
        """Those replies to these questions that can be fetched now.

        Args:
            asked: numbers of the questions.
            announced: what the SuperLink said of them just now; what is not all there is kept for the next call.
        """
        for reply in announced:
            self._waiting.setdefault(reply[0].metadata.reply_to_message_id, []).append(reply)
        for number in asked:
            for reply in self._waiting.pop(number, []):
                if self._there(reply[1]):
                    yield reply
                else:
                    self._waiting.setdefault(number, []).append(reply)

    def _there(self, tree: ObjectTree) -> bool:
        try:
            self._fetch(tree.object_id)
        except ObjectUnavailableError:
            return False
        except ObjectPullError:
            # It will never be there: whoever fetches it learns so.
            return True
        return True
