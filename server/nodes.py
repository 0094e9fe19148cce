"""Members' Flower nodes in the SuperLink: it answers no node that was not registered here.

Flower has no public call for this but its command line, which takes seconds a node; so its own client is used, one
of the places that `tests/server/test_edge.py` holds to the installed version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient

from common.errors import FederationError
from server.federation_folder import Consortium


def register(consortium: Consortium) -> list[str]:
    """Make the SuperLink's nodes those of the members: add who is missing, take out who left.

    Returns:
        The members that were added.

    Raises:
        FederationError: `superlink` when it does not answer, or refuses.
    """
    wanted = {row.node.encode(): row.name for row in consortium.book.sites() if row.node}
    with _client(consortium) as client:
        present = _present(client)
        for key, node in present.items():
            if key not in wanted and node.status != NodeStatus.UNREGISTERED:
                client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
        missing = {key: name for key, name in wanted.items() if key not in present}
        for key, name in missing.items():
            client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
    return sorted(missing.values())


def registered(consortium: Consortium) -> list[str]:
    """The members whose nodes the SuperLink would answer.

    Raises:
        FederationError: as `register`.
    """
    with _client(consortium) as client:
        there = {key for key, node in _present(client).items() if node.status != NodeStatus.UNREGISTERED}
    return sorted(row.name for row in consortium.book.sites() if row.node.encode() in there)


def _present(client: ControlHttpClient) -> dict[bytes, NodeInfo]:
    return {bytes(node.public_key): node for node in client.ListNodes(ListNodesRequest()).nodes_info}


@contextmanager
def _client(consortium: Consortium) -> Iterator[ControlHttpClient]:
    at = consortium.settings.superlink
    try:
        client = ControlHttpClient.from_server_address(
            server_address=f"{at.host}:{at.port}",
            insecure=False,
            root_certificates=(consortium.pki / "ca.crt").read_bytes(),
            interceptors=[],
        )
        try:
            yield client
        finally:
            client.close()
    except (httpx.HTTPError, ValueError):
        raise FederationError(
            "the SuperLink", "it does not answer", "See its log in run/", code="superlink"
        ) from None
