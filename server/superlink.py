"""Flower's SuperLink, which does the same with less work.

    python -m server.superlink --database superlink.sqlite … (as flower-superlink)

Most of what a round took beyond computing, it took here. Four things are otherwise than in `flower-superlink`:

1. What is asked most often goes the short way to Flower's own handlers, and a node that asks for what is not there yet is
   answered when it is (`common.shortway`).
2. Long objects lie in files beside the database (`server.objects`).
3. Who writes to the database takes a turn in this process, and an object that comes is checked and on disk before its turn
   (`server.objects`).
4. Task tokens that ran out are looked for once a second, and bytes are added up once a second, not with every object: both
   are writes, for which all others wait.

This reaches into parts of Flower that promise nothing: `MOVED` says which. The process looks at them before it starts and
refuses to run beside a Flower where one has changed.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from common.errors import SettingsError
from common.executor import keep_to_ourselves
from common.moved import SHORTWAY, Parts, require

MODULE: Final = "server.superlink"
OBJECTS: Final = ".objects"
"""Ends the name of the folder beside the database in which long objects lie."""
_APP: Final = "flwr.superlink.main"
_FLEET: Final = "flwr.superlink.servicer.fleet.fleet_handlers"
_SQL: Final = "flwr.server.superlink.linkstate.sql_linkstate"
_STORE: Final = "flwr.supercore.object_store.sql_object_store"
_SOON_S: Final = 1.0
QUESTION_S: Final = 2.0
"""How long a node's look for a question is held."""
OBJECT_S: Final = 2.0
"""How long a node's look for an object is held that was named and has not come."""
REPLY_S: Final = 0.5
"""How long a ServerApp's look for replies is held; it has other things to do between two of them."""
WORK_S: Final = 2.0
WORK_LOOK_S: Final = 0.5
"""How long an executor's look for a run is held, and how often it is looked: a run begins on the long way."""
MOVED: Final[Parts] = MappingProxyType(
    {
        **SHORTWAY,
        # Finds `create_app` and the factories by their names in `flwr.superlink.main`, and builds nothing before.
        (
            "flwr.superlink.cli.flower_superlink",
            "_run_superlink_http_api",
        ): "eb0d78b85f99957695c35e93ab10cc2766116f2fdb0c96bb982ff75f4e5cfc45",
        (
            "flwr.superlink.main",
            "create_app",
        ): "ee966b630c8ba8b56315e8db3296df6c2ae6d9bd3a9826e28be63c85e321dbe1",
        (
            "flwr.superlink.main",
            "_get_middleware",
        ): "acdbc2dce1520f8f01c1aad909d2ca714d748ba0994e5301f85517fcb4d945dd",
        (
            "flwr.superlink.config_loader",
            "get_objectstore_linkstate_factories",
        ): "9f697d33f4936d2293e656244c7a57ede413e329a105870e7d2f1963ea711b5d",
        (
            "flwr.superlink.routers.fleet.node_auth",
            "authenticate_node",
        ): "f8e66372d61b3653fc6ee3f9772cc89f805a01bed65e6ce55e4b5fb3a6ad3a17",
        (
            "flwr.superlink.routers.fleet.node_auth",
            "NodeAuthMiddleware",
        ): "36b9ef8b482a1722710dfe45def3d5d9620294c340f25b6dfed5130aaa66e90e",
        (
            "flwr.superlink.routers.fleet.router",
            "fleet_pull_messages",
        ): "0f9739ecca2af0de1b4c7ac9e0631dc9eb77c03d5f7eabffc746104c0fd8c4ee",
        (
            "flwr.superlink.routers.fleet.router",
            "fleet_push_messages",
        ): "925bc195db096d4389920dd78083671ddecaee09b03b802d0f294dbd9711df6a",
        (
            "flwr.superlink.routers.fleet.router",
            "fleet_pull_object",
        ): "a9210ac81ae69241838b01c0f56458bd4947ff9b75810dd3bf6d4ecec90f9619",
        (
            "flwr.superlink.routers.fleet.router",
            "fleet_push_object",
        ): "1910dcd9cc2f0b5584c8a7131d0f0289f8c401af66485ae2231417a18300a2b9",
        (
            "flwr.superlink.routers.fleet.router",
            "fleet_confirm_message_received",
        ): "8a8b7dda0effa2aac46ecf279105c509843b4c66a28e2e25b8337d9e8a0bd53c",
        (
            "flwr.supercore.object_store.sql_object_store",
            "SqlObjectStore",
        ): "4c553d469e5fb89cb574a883c7c380e44e7acbaef60e22a20a06bf8093dfffa9",
        (
            "flwr.supercore.object_store.object_store_factory",
            "ObjectStoreFactory",
        ): "8737747562399b1a075b52fb6e9b3155c1f86775f2a468c0e2467316401733ad",
        (
            "flwr.server.superlink.linkstate.linkstate_factory",
            "LinkStateFactory",
        ): "9a019d15600620f0dae7c10b0d605e897a7870f62ed76beda75481bcf321faf9",
        # Every transaction of state and store, which is entered and left in one thread.
        (
            "flwr.supercore.sql_mixin",
            "SqlMixin.session",
        ): "2aa8a8351f33f7c4e9e90a94ec1894ec3c2494fc6d46a93967ef69f107811d78",
        (
            "flwr.supercore.corestate.sql_corestate",
            "SqlCoreState.store_object",
        ): "903590e226814f4ab60292a958da882e8608db38a732c185e82efd9452b6e548",
        (
            "flwr.supercore.corestate.sql_corestate",
            "SqlCoreState.get_object",
        ): "6fca12d9ec588533c9079fbb6c442d11ac1f306e9a09d035bfe0e67edbb85a00",
        (
            "flwr.supercore.corestate.sql_corestate",
            "SqlCoreState._cleanup_expired_task_tokens",
        ): "34301eae2ee4a008eb2d62da29b327c4941e7fa086ea86da55d412ca58498780",
        (
            "flwr.server.superlink.linkstate.sql_linkstate",
            "SqlLinkState.store_traffic",
        ): "cc82e5eaf2bb9665843692a01e6cffcf48de9d7ee60fb8e0b6e711d6a58f5524",
        (
            "flwr.supercore.inflatable.inflatable_utils",
            "validate_object_content",
        ): "86b85558c2b3596bff70b30d3ef369b6a380ca3a89d9796db18540bed975f5ed",
        (
            "flwr.app.message.message",
            "Message.deflate",
        ): "8ad1a4a4651b4246e5fad67038299cf970ed89120c1e1cbeaef452875940e8f1",
    }
)
"""Module and name to the SHA-256 of its source, in the version of Flower this was written for."""


def ways() -> dict[str, Any]:
    """What is answered the short way, by path."""
    from flwr.superlink.dependencies.linkstate import get_linkstate  # noqa: PLC0415 - slow to import
    from flwr.superlink.routers.fleet.node_auth import authenticate_node  # noqa: PLC0415
    from flwr.superlink.servicer.fleet import fleet_handlers  # noqa: PLC0415

    from common.shortway import (  # noqa: PLC0415
        REPLIES,
        Way,
        for_message,
        for_object,
        for_work,
        of_object,
        questions_for,
        runtime,
    )

    def of_node(name: str, *, stored: bool = False) -> Callable[[Any], Callable[[], Any]]:
        handler = getattr(fleet_handlers, name)

        def answer(request: Any) -> Callable[[], Any]:
            authenticate_node(request)
            state = get_linkstate(request)
            parts = {"request": request.state.protobuf_request, "state": state}
            return lambda: handler(**parts, **({"store": state.object_store} if stored else {}))

        return answer

    reply = for_message(REPLIES, REPLY_S)
    return {
        **runtime("SuperLink", for_work(WORK_S, WORK_LOOK_S), for_object(REPLY_S), reply),
        "/v1/fleet/pull-messages": Way(
            of_node("pull_messages", stored=True),
            for_message(lambda asked: questions_for(asked.node.node_id), QUESTION_S),
        ),
        "/v1/fleet/push-messages": Way(of_node("push_messages"), news=lambda _asked, _size: (REPLIES,)),
        "/v1/fleet/pull-object": Way(of_node("pull_object"), for_object(OBJECT_S)),
        "/v1/fleet/push-object": Way(of_node("push_object"), news=of_object),
        "/v1/fleet/confirm-message-received": Way(of_node("confirm_message_received", stored=True)),
    }


def seldom(state: type[Any]) -> type[Any]:
    """Flower's state in SQL, which writes what is of no hurry once a second.

    Args:
        state: Flower's class.
    """

    class Seldom(state):  # type: ignore[misc] # a class that is found while we run
        """See `seldom`."""

        def __init__(self, *parts: Any, **named: Any) -> None:
            super().__init__(*parts, **named)
            self._looked_s = self._added_s = float("-inf")
            self._sent: Counter[int] = Counter()
            self._received: Counter[int] = Counter()
            self._adding = threading.Lock()

        def _cleanup_expired_task_tokens(self) -> None:
            now = time.monotonic()
            if now - self._looked_s < _SOON_S:
                return
            self._looked_s = now
            super()._cleanup_expired_task_tokens()

        def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
            """Add bytes up; they are written with the first of the next second."""
            with self._adding:
                self._sent[run_id] += bytes_sent
                self._received[run_id] += bytes_recv
                now = time.monotonic()
                if now - self._added_s < _SOON_S:
                    return
                self._added_s = now
                due = {run: (self._sent[run], self._received[run]) for run in self._sent}
                self._sent.clear()
                self._received.clear()
            for run, (sent, received) in due.items():
                with suppress(ValueError):  # a run that is not there any more
                    super().store_traffic(run, bytes_sent=sent, bytes_recv=received)

    return Seldom


def in_turn(state: type[Any]) -> type[Any]:
    """Flower's state in SQL, which waits for its turn instead of looking again and again.

    Args:
        state: Flower's class, or one made of it; its store is a `server.objects.FileObjectStore`.
    """

    class InTurn(state):  # type: ignore[misc] # as above
        """See `in_turn`."""

        @contextmanager
        def session(self) -> Iterator[Any]:
            """A transaction, in the turn of the store's."""
            with self.object_store.turn, super().session() as session:
                yield session

        def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
            """Keep an object that is waited for; its content is ready before anybody else has to wait."""
            with self.object_store.laid_down(object_id, object_content):
                return bool(super().store_object(run_id, session_id, object_id, object_content))

    return InTurn


def lighten() -> None:
    """Have the SuperLink of this process do so.

    Raises:
        SettingsError: code `flower-moved`.
    """
    require(MOVED, "SuperLink")
    app: Any = importlib.import_module(_APP)
    make_app, make_factories = app.create_app, app.get_objectstore_linkstate_factories

    def factories(database: str, federation: Any) -> Any:
        from server.objects import FileObjectStore  # noqa: PLC0415 - sqlalchemy

        objects, states = make_factories(database, federation)
        if ":" not in database:
            store = FileObjectStore(database, Path(database + OBJECTS))
            store.initialize()
            objects.store_instance = store
            made = in_turn(seldom(importlib.import_module(_SQL).SqlLinkState))
            state = made(database, federation, store)
            state.initialize()
            states.state_instance = state
        return objects, states

    def quick_app(*parts: Any, **named: Any) -> Any:
        from common.shortway import ShortWay  # noqa: PLC0415 - fastapi

        return ShortWay(make_app(*parts, **named), ways())

    app.get_objectstore_linkstate_factories, app.create_app = factories, quick_app


def command(*words: str) -> tuple[str, ...]:
    """The command line of a SuperLink; `words` are for `flower-superlink`."""
    return (sys.executable, "-m", MODULE, *words)


def main() -> None:
    """Run Flower's SuperLink with the arguments of this process."""
    keep_to_ourselves()
    from flwr.superlink.cli.flower_superlink import flower_superlink  # noqa: PLC0415 - slow to import

    try:
        lighten()
    except SettingsError as error:
        sys.exit(str(error))
    flower_superlink()


if __name__ == "__main__":
    main()
