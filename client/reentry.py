"""A node of Flower's that is let in again at once after it was killed.

A SuperLink takes a node with a key for present until its last sign of life is twenty seconds old (`client.heartbeat`), and
until then refuses another with the same key, also the one that its supervisor started in its place. Here the node
remembers its number, and when it is refused it signs its predecessor off, which only the same key can, and asks once more.
Of one hospital two nodes never run at a time: the supervisor's folder is locked. `tests/client/test_reentry.py` holds what is
assumed here to the installed version of Flower.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PLACE: Final = "flwr.supernode.fleet_http_connection"
NAME: Final = "FleetHttpClient"
"""Where the connection finds its client by name."""
MEMORY: Final = "node.number"
"""A file in the folder where the node runs: the courier's own."""


def returning(client: type[Any], memory: Path) -> type[Any]:
    """A client that signs its predecessor off when it is not let in.

    Args:
        client: Flower's, which raises `httpx.HTTPStatusError` where it is refused.
        memory: file with the number of the node of this key; made when it is let in.
    """
    import httpx  # noqa: PLC0415 - slow to import
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest  # noqa: PLC0415

    class Returning(client):  # type: ignore[misc] # a class that is found while we run
        """See `returning`."""

        def ActivateNode(self, request: Any) -> Any:  # noqa: N802 - Flower calls it by this name
            """Be let in."""
            try:
                response = super().ActivateNode(request)
            except httpx.HTTPStatusError:
                before = _remembered(memory)
                if before is None:
                    raise
                super().DeactivateNode(DeactivateNodeRequest(node_id=before))
                response = super().ActivateNode(request)
            with suppress(OSError):  # forgetting it costs twenty seconds
                memory.write_text(str(response.node_id), encoding="ascii")
            return response

    return Returning


def remember(memory: Path) -> None:
    """Have the SuperNode of this process do so."""
    place: Any = importlib.import_module(PLACE)
    setattr(place, NAME, returning(getattr(place, NAME), memory))


def _remembered(memory: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(memory.read_text(encoding="ascii"))
    return None
