"""An error of Flower's own leaves a hospital as its number, without a word.

When an app cannot be unpacked or its process fails outside of our handlers, Flower answers the server with the exception's
text, and such a text names folders and accounts of this machine. The server reads the number only (`server.exchange`), so
the words are taken out where replies leave the node. Flower has no setting for it; what is assumed of its parts is held
to the installed version by `client.node.MOVED`.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flwr.app import Message

LOOP: Final = "flwr.supernode.start_client_internal"


class _Replies:
    """The node's state, whose replies have no words of an error."""

    def __init__(self, state: Any, store: Any) -> None:
        self._state, self._store = state, store

    def get_messages_legacy(self, **which: Any) -> list[Message]:
        """What Flower's loop asks for replies by."""
        return [self._bare(message) for message in self._state.get_messages_legacy(**which)]

    def _bare(self, message: Message) -> Message:
        if not message.has_error() or not message.error.reason:
            return message
        bare = without_words(message)
        # A message is fetched by the hash of what it holds, so this is another one, in the place of the first.
        from flwr.supercore.inflatable.inflatable_object import get_object_tree  # noqa: PLC0415 - slow to import

        self._store.preregister(bare.metadata.run_id, get_object_tree(bare))
        self._store.put(bare.object_id, bare.deflate())
        self._state.delete_messages(message_ids=[message.metadata.message_id])
        return bare

    def __getattr__(self, name: str) -> Any:
        """Everything else is the state's."""
        return getattr(self._state, name)


def without_words(message: Message) -> Message:
    """The same error message with its number alone."""
    from flwr.app import Error  # noqa: PLC0415 - slow to import, and who starts the node's process needs none of it
    from flwr.app.message.message import make_message  # noqa: PLC0415

    bare: Message = make_message(copy.copy(message.metadata), error=Error(message.error.code))
    bare.metadata.__dict__["_message_id"] = bare.object_id
    return bare


def wordless(push: Callable[..., None]) -> Callable[..., None]:
    """Flower's `_push_messages`, given a state whose replies have no words of an error."""

    def pushed(**parts: Any) -> None:
        push(**{**parts, "state": _Replies(parts["state"], parts["object_store"])})

    return pushed


def silence() -> None:
    """Have the SuperNode of this process send no words of an error."""
    loop: Any = importlib.import_module(LOOP)
    loop._push_messages = wordless(loop._push_messages)  # noqa: SLF001 - what this module is for
