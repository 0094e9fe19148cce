"""The socket between courier and service, with real gRPC on a real Unix socket."""

from __future__ import annotations

import stat
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.socket import call, healthy, serve
from common.errors import FederationError


class Echo:
    """Answers what it is told, slowly if asked to."""

    def answer(self, blob: bytes) -> bytes:
        if blob == b"slow":
            time.sleep(1.0)
        if blob == b"raise":
            raise ValueError("/pacs/Anna.dcm")
        return blob[::-1]


@pytest.fixture
def path(tmp_path):
    server = serve(Echo(), tmp_path / "s" / "site.sock")
    yield tmp_path / "s" / "site.sock"
    server.stop(grace=None).wait()


def test_bytes_go_in_and_come_out_large_ones_too(path):
    assert call(path, b"abc", 5) == b"cba"
    assert len(call(path, bytes(20 << 20), 20)) == 20 << 20


def test_an_orchestrator_s_probe_is_answered_without_knowing_our_names(path):
    """`grpc_health_probe -addr unix:PATH` and Kubernetes ask for the empty service unless told otherwise."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="another"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_it_says_that_it_is_healthy(path, tmp_path):
    assert healthy(path)
    assert not healthy(tmp_path / "nobody.sock", 0.2)


def test_only_its_owner_may_use_it(path):
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


def test_a_late_answer_and_no_answer_are_told_apart(path, tmp_path):
    with pytest.raises(FederationError) as caught:
        call(path, b"slow", 0.2)
    assert caught.value.code == "timeout"
    with pytest.raises(FederationError) as caught:
        call(tmp_path / "nobody.sock", b"x", 0.5)
    assert caught.value.code == "no-service"


def test_a_service_that_breaks_does_not_tell_why(path):
    with pytest.raises(FederationError) as caught:
        call(path, b"raise", 5)
    assert "Anna" not in str(caught.value)


def test_a_socket_left_by_a_crash_is_replaced(path):
    second = serve(Echo(), path)
    assert call(path, b"ab", 5) == b"ba"
    second.stop(grace=None).wait()


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(tmp_path):
    with pytest.raises(FederationError) as caught:
        serve(Echo(), tmp_path / ("x" * 200) / "site.sock")
    assert caught.value.code == "socket"
