"""Flower's SuperNode, with one thing more: it runs no bundle that this hospital did not approve.

    python -m client.node --socket /run/consilium/service.sock --superlink … (as flower-supernode)

Flower's own check of bundles needs a verification by Flower's hub. Here the site service is asked instead, by the bundle's
SHA-256; a bundle it does not know is answered with Flower's error INVALID_FAB, which the server reads as `not-approved`,
and the node stays up for the next. Nothing of such a bundle is stored, unpacked or imported. And no error of Flower's own
says more than its number (`client.wordless`).

This reaches into parts of Flower that promise nothing: `MOVED` says which, and what is assumed of them. The node looks at
them before it starts and refuses to run beside a Flower where one has changed.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from client.ending import as_a_whole
from client.heartbeat import shorten
from client.pace import quicken
from client.reentry import MEMORY, remember
from client.wordless import silence
from common.again import sooner
from common.errors import ConsiliumError, SettingsError
from common.executor import keep_to_ourselves
from common.logs import Log
from common.moved import SHORTWAY, Parts, changed, require
from common.types import Digest

if TYPE_CHECKING:
    from common.news import News

_LOG: Final = Log("client.node")
_LOOP: Final = "flwr.supernode.start_client_internal"
MOVED: Final[Parts] = MappingProxyType(
    {
        **SHORTWAY,
        # Makes the app that executor and courier speak to, found by its name in the module.
        (
            "flwr.supernode.main",
            "create_app",
        ): "28b04dd1c24669a2adb2da1b7c6147d2edd63092ddfc9b6a61a9b5cec0fe2b4d",
        (
            "flwr.supernode.cli.flower_supernode",
            "_start_supernode_http_api",
        ): "b2832210a0cad93a6334907011f65796dd5a096477f0afbfb966e831c17ef9de",
        # The bundle is fetched by `get_fab`, judged by `_verify_fab` before it is stored, and answered by an error.
        (
            _LOOP,
            "_pull_and_store_message",
        ): "eaf5d0e36dc34e4cf46a490511d077ac55cc8edbbcdbe938c1f6dbcb758628be",
        # Called with (fab, trusted_entities); False makes INVALID_FAB of it.
        (_LOOP, "_verify_fab"): "dc3eb78d803b8fe9a65bc704e17da8b58e9f43020b43bf2ba0ba4812483634aa",
        # Calls the first by its name in the module and with keywords.
        (_LOOP, "start_client_internal"): "9e89a6eb68fbec6821e817cd2c09f7894fc7b0f5725c2365b19a7122307f11f3",
        # Takes replies from the state and their objects from the store; `client.wordless` stands between.
        (_LOOP, "_push_messages"): "00bb86faffdec114db87e7f716af2acd901d12284e44f51f5c2a84704db05f64",
        # hash_str, content, verifications.
        ("flwr.supercore.fab", "Fab"): "140aff940cdb015e4adbaafb07749cef5d6bc9e65663d1bae9254a57d59fdfee",
        # Takes its arguments from `sys.argv`.
        (
            "flwr.supernode.cli.flower_supernode",
            "_parse_supernode_lifespan_config",
        ): "4094956c95246dbed45a4a7c77058d1362727b67fa703975bfc4f81a490541aa",
    }
)
"""Module and name to the SHA-256 of its source, in the version of Flower this was written for."""
_PATIENCE_S: Final = 20.0
"""So long the site service may be away, being started anew, before a bundle counts as not approved."""
_POLL_S: Final = 0.5
_STALLED_S: Final = 15.0
_ROOT: Final = b"Message "
"""Begins the object that a message is."""
_SOON_S: Final = 0.03
HELD_S: Final = 2.0
"""How long the executor's look for a task, and the courier's for a question or an object on its way, are held."""
_NEAR_S: Final = 0.5
"""How often it is looked for them in any case; they come by this process's own loop, which tells of them."""
_VOUCHER: Final = "consilium"

Approved = Callable[[Digest], bool]
"""Whether a bundle of this digest may run here; raises where nobody can say."""


def moved() -> list[str]:
    """What of Flower is not as it was when this was written; empty when all is."""
    return changed(MOVED)


def guard(approved: Approved, tell: Callable[..., None] = lambda *_topics: None) -> None:
    """Have the SuperNode of this process ask `approved` before it takes in a bundle.

    Args:
        approved: whether a bundle may run here.
        tell: told of what executor and courier wait for (topics of `common.shortway`).

    Raises:
        SettingsError: code `flower-moved`, naming the parts of Flower that are not as they were.
    """
    require(MOVED, "node")
    loop: Any = importlib.import_module(_LOOP)
    fab_type = importlib.import_module("flwr.supercore.fab").Fab
    pull = loop._pull_and_store_message  # noqa: SLF001 - what this module is for; see `MOVED`

    def pulled(**parts: Any) -> Any:
        get_fab, pull_object = parts["get_fab"], patient(parts["pull_object"])

        def fetched(digest: str, run_id: int) -> Any:
            fab = get_fab(digest, run_id)
            # Whatever the server says of itself is dropped; that there is a word at all makes Flower ask `judged`.
            return fab_type(fab.hash_str, fab.content, {"valid_license": _VOUCHER})

        handing = _Handing(parts["object_store"], tell)
        changes = {
            "state": _Telling(parts["state"], tell),
            "get_fab": fetched,
            "object_store": handing,
            "pull_object": lambda run_id, number: handing.on(number, pull_object(run_id, number)),
            "trusted_entities": {_VOUCHER: ""},
        }
        return pull(**{**parts, **changes})

    def judged(fab: Any, _entities: object) -> bool:
        digest = Digest(f"sha256:{hashlib.sha256(fab.content).hexdigest()}")
        good = digest == f"sha256:{fab.hash_str}" and _asked(approved, digest)
        _LOG.info("bundle.approved" if good else "bundle.refused", digest=digest)
        return good

    loop._pull_and_store_message = pulled  # noqa: SLF001
    loop._verify_fab = judged  # noqa: SLF001


class _Handing:
    """The store of a question on its way: the courier gets each object when it has come, and the last when all have.

    Flower stores them when all have come. By then the courier, which was started meanwhile, may have taken in and forgotten
    what was handed on; so of the message itself it hears from Flower.
    """

    def __init__(self, store: Any, tell: Callable[..., None]) -> None:
        self._store = store
        self._tell = tell
        self._handed: set[str] = set()

    def on(self, number: str, content: bytes) -> bytes:
        """Hand an object on that has come."""
        if not content.startswith(_ROOT):
            self._store.put(number, content)
            self._handed.add(number)
            self._tell(number)
        return content

    def put(self, number: str, content: bytes) -> None:
        """As the store, for what was not handed on."""
        if number not in self._handed:
            self._store.put(number, content)
            self._tell(number)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the store's."""
        return getattr(self._store, name)


class _Telling:
    """The node's state, which tells whoever waits of a task or a question in it."""

    def __init__(self, state: Any, tell: Callable[..., None]) -> None:
        self._state = state
        self._tell = tell

    def create_task(self, *parts: Any, **named: Any) -> Any:
        """As the state; then the executor looks."""
        made = self._state.create_task(*parts, **named)
        self._tell("work")
        return made

    def store_message(self, *parts: Any, **named: Any) -> Any:
        """As the state; then the courier looks."""
        stored = self._state.store_message(*parts, **named)
        self._tell("questions")
        return stored

    def __getattr__(self, name: str) -> Any:
        """Everything else is the state's."""
        return getattr(self._state, name)


def patient(
    pull_object: Callable[[int, str], bytes], stalled_s: float = _STALLED_S
) -> Callable[[int, str], bytes]:
    """Fetch the objects of one message, and give it up when nothing more of it comes for so many seconds.

    A server that is killed while it sends a question would else hold this node for three minutes. Flower forgets a message
    whose fetching fails, and looks for the next. And it looks again after a second, two, four, for what the server has named
    and not sent yet, which is most of what a question takes; here it is looked for again at once, and then less often.
    """
    # Slow to import, and who starts the node's process needs none of it.
    from flwr.supercore.inflatable.inflatable_utils import (  # noqa: PLC0415
        ObjectPullError,
        ObjectUnavailableError,
    )

    came: list[float] = []

    def pulled(run_id: int, number: str) -> bytes:
        if not came:
            came.append(time.monotonic())
        pause = _SOON_S
        while True:
            try:
                content = pull_object(run_id, number)
            except ObjectUnavailableError:
                if time.monotonic() - came[0] > stalled_s:
                    raise ObjectPullError(number, "nothing more of its message comes") from None
            else:
                came[0] = time.monotonic()
                return content
            time.sleep(pause)
            pause = min(2 * pause, _POLL_S)

    return pulled


def lighten(news: News) -> None:
    """Have the SuperNode of this process answer its courier and its executor the short way (`common.shortway`).

    Args:
        news: between the node's loop and whoever asks this process.
    """
    place: Any = importlib.import_module("flwr.supernode.main")
    make_app = place.create_app

    def quick_app(*parts: Any, **named: Any) -> Any:
        from common.shortway import QUESTIONS, ShortWay, for_message, for_object, for_work, runtime  # noqa: PLC0415 - fastapi

        near = (HELD_S, _NEAR_S)
        ways = runtime("SuperNode", for_work(*near), for_object(*near), for_message(QUESTIONS, *near))
        return ShortWay(make_app(*parts, **named), ways, news)

    place.create_app = quick_app


def _asked(approved: Approved, digest: Digest) -> bool:
    """The service's word; none within `_PATIENCE_S` is a no."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return approved(digest)
        except ConsiliumError as error:
            if time.monotonic() >= until:
                _LOG.error("bundle.unanswered", code=error.code)
                return False
        time.sleep(_POLL_S)


def command(socket: Path, *words: str) -> tuple[str, ...]:
    """The command line of a node whose site service listens at `socket`; `words` are for `flower-supernode`."""
    return (sys.executable, "-m", "client.node", "--socket", str(socket), *words)


def main() -> None:
    """Run a SuperNode with the arguments of this process."""
    from client.socket import approved  # noqa: PLC0415 - grpc
    from common.logs import configure  # noqa: PLC0415
    from common.news import News  # noqa: PLC0415 - asyncio

    name, flag, socket, *rest = [*sys.argv, "", "", ""][: max(4, len(sys.argv))]
    if flag != "--socket" or not socket:
        sys.exit("client.node: the first argument is --socket, then the path of the site service's socket")
    configure("INFO")
    keep_to_ourselves()
    news = News()
    try:
        guard(lambda digest: approved(Path(socket), digest), news.tell)
    except SettingsError as error:
        sys.exit(str(error))
    sys.argv = [name, *filter(None, rest), "--node-config", f'service-socket="{socket}"']
    from flwr.supernode.cli.flower_supernode import flower_supernode  # noqa: PLC0415 - slow to import

    shorten()
    sooner()
    quicken(news.wait)
    lighten(news)
    remember(Path(MEMORY).absolute())
    silence()
    as_a_whole(flower_supernode)


if __name__ == "__main__":
    main()
