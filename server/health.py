"""Asking the SuperLink whether it serves, by gRPC's standard health service (grpc.health.v1), as orchestrators do.

Flower answers it on a port of its own, without TLS, so it is on this machine's loopback like the rest.
"""

from __future__ import annotations

from typing import Final

from server.settings import SuperLink

_PATIENCE_S: Final = 2.0


def serving(superlink: SuperLink) -> bool:
    """Whether the SuperLink says that it serves; a process that is there and does nothing does not.

    Where `health_port` is 0 nobody can be asked, and it is taken to.
    """
    if not superlink.health_port:
        return True
    # Half a second that a command line would pay at its start.
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    with grpc.insecure_channel(
        f"{superlink.host}:{superlink.health_port}", options=(("grpc.enable_http_proxy", 0),)
    ) as line:
        try:
            reply = health_pb2_grpc.HealthStub(line).Check(
                health_pb2.HealthCheckRequest(), timeout=_PATIENCE_S
            )
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
