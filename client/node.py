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
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from client.heartbeat import shorten
from client.pace import quicken
from client.reentry import MEMORY, remember
from client.wordless import silence
from common.errors import ConsiliumError, SettingsError
from common.executor import keep_to_ourselves
from common.logs import Log
from common.release import bytes_digest
from common.types import Digest

_LOG: Final = Log("client.node")
FLOWER: Final = "1.41.0"
_LOOP: Final = "flwr.supernode.start_client_internal"
MOVED: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
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
_SOON_S: Final = 0.03
_VOUCHER: Final = "consilium"

Approved = Callable[[Digest], bool]
"""Whether a bundle of this digest may run here; raises where nobody can say."""


def moved() -> list[str]:
    """What of Flower is not as it was when this was written; empty when all is.

    A developer who reads a name here reads that function anew, and then `source_digest` of it into `MOVED`.
    """
    found = [] if version("flwr") == FLOWER else [f"flwr {version('flwr')} is not {FLOWER}"]
    for (module, name), digest in MOVED.items():
        try:
            part = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            found.append(f"{module}.{name} is gone")
            continue
        if source_digest(part) != digest:
            found.append(f"{module}.{name} has changed")
    return found


def source_digest(part: Any) -> str:
    """SHA-256 of a function's or class's source text; empty where it has none."""
    try:
        return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()
    except (OSError, TypeError):
        return ""


def guard(approved: Approved) -> None:
    """Have the SuperNode of this process ask `approved` before it takes in a bundle.

    Raises:
        SettingsError: code `flower-moved`, naming the parts of Flower that are not as they were.
    """
    changed = moved()
    if changed:
        raise SettingsError(
            "Flower",
            f"parts of it that the node depends on are not as they were: {'; '.join(changed)}",
            f"Install the release as it is: it needs flwr {FLOWER} exactly",
            code="flower-moved",
        )
    loop: Any = importlib.import_module(_LOOP)
    fab_type = importlib.import_module("flwr.supercore.fab").Fab
    pull = loop._pull_and_store_message  # noqa: SLF001 - what this module is for; see `MOVED`

    def pulled(**parts: Any) -> Any:
        get_fab, pull_object = parts["get_fab"], parts["pull_object"]

        def fetched(digest: str, run_id: int) -> Any:
            fab = get_fab(digest, run_id)
            # Whatever the server says of itself is dropped; that there is a word at all makes Flower ask `judged`.
            return fab_type(fab.hash_str, fab.content, {"valid_license": _VOUCHER})

        changes = {
            "get_fab": fetched,
            "pull_object": patient(pull_object),
            "trusted_entities": {_VOUCHER: ""},
        }
        return pull(**{**parts, **changes})

    def judged(fab: Any, _entities: object) -> bool:
        digest = bytes_digest(fab.content)
        good = digest == f"sha256:{fab.hash_str}" and _asked(approved, digest)
        _LOG.info("bundle.approved" if good else "bundle.refused", digest=digest)
        return good

    loop._pull_and_store_message = pulled  # noqa: SLF001
    loop._verify_fab = judged  # noqa: SLF001


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

    name, flag, socket, *rest = [*sys.argv, "", "", ""][: max(4, len(sys.argv))]
    if flag != "--socket" or not socket:
        sys.exit("client.node: the first argument is --socket, then the path of the site service's socket")
    configure("INFO")
    keep_to_ourselves()
    try:
        guard(lambda digest: approved(Path(socket), digest))
    except SettingsError as error:
        sys.exit(str(error))
    sys.argv = [name, *filter(None, rest), "--node-config", f'service-socket="{socket}"']
    from flwr.supernode.cli.flower_supernode import flower_supernode  # noqa: PLC0415 - slow to import

    shorten()
    quicken()
    remember(Path(MEMORY).absolute())
    silence()
    flower_supernode()


if __name__ == "__main__":
    main()
