"""The socket between courier and service, with real gRPC on a real Unix socket."""

from __future__ import annotations

import stat
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.socket import APPROVED, METHOD, call, healthy, serve
from common.errors import FederationError
from tests.world.processes import Processes, until


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
    assert call(path, b"abc", 60) == b"cba"
    assert len(call(path, bytes(20 << 20), 120)) == 20 << 20


def test_an_orchestrator_s_probe_is_answered_without_knowing_our_names(path):
    """`grpc_health_probe -addr unix:PATH` and Kubernetes ask for the empty service unless told otherwise."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="another"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_it_says_that_it_is_healthy(path, tmp_path):
    assert healthy(path, 60.0)
    assert not healthy(tmp_path / "nobody.sock", 0.2)


def test_only_its_owner_may_use_it(path):
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


def test_a_late_answer_and_no_answer_are_told_apart(path, tmp_path):
    with pytest.raises(FederationError) as caught:
        call(path, b"slow", 0.2)
    assert caught.value.code == "timeout"
    with pytest.raises(FederationError) as caught:
        call(tmp_path / "nobody.sock", b"x", 30)
    assert caught.value.code == "no-service"


def test_a_service_that_breaks_does_not_tell_why(path):
    with pytest.raises(FederationError) as caught:
        call(path, b"raise", 60)
    assert "Anna" not in str(caught.value)


def test_a_socket_left_by_a_crash_is_replaced(path):
    second = serve(Echo(), path)
    assert call(path, b"ab", 60) == b"ba"
    second.stop(grace=None).wait()


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(tmp_path):
    with pytest.raises(FederationError) as caught:
        serve(Echo(), tmp_path / ("x" * 200) / "site.sock")
    assert caught.value.code == "socket"


MIB = 1 << 20
SERVICE = """
import sys, threading
from pathlib import Path
from client.socket import serve

class Counts:
    def answer(self, blob):
        return str(len(blob)).encode()

serve(Counts(), Path(sys.argv[1]), 64 << 20).wait_for_termination()
"""


@pytest.fixture
def resident(tmp_path):
    """A service in a process of its own with room for 64 MiB: its socket, and its peak memory in MiB so far."""
    path = tmp_path / "s" / "site.sock"
    with Processes(tmp_path / "logs") as processes:
        child = processes.start("service", [sys.executable, "-c", SERVICE, str(path)])
        until("it serves", lambda: healthy(path))

        def peak() -> float:
            status = Path(f"/proc/{child.pid}/status").read_text()
            return (
                int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
            )

        yield path, peak


def pushed(path: Path, push) -> grpc.StatusCode | bytes:
    """What a call that is not ours comes to."""
    options = (("grpc.max_send_message_length", -1),)
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        try:
            return push(channel)
        except grpc.RpcError as error:
            return error.code()


def endless(pieces: int = 1 << 20):
    piece = bytes(MIB)
    return (piece for _ in range(pieces))


def test_large_pushes_over_the_socket_do_not_grow_the_service(resident):
    """Without an end, in one piece, by the other method, many at once: all turned away, and the next call is answered."""
    path, peak = resident
    full = grpc.StatusCode.RESOURCE_EXHAUSTED
    before = peak()
    assert pushed(path, lambda line: line.stream_unary(METHOD)(endless(), timeout=60)) == full
    huge = bytes(300 * MIB)
    for method in (METHOD, APPROVED):
        assert pushed(path, lambda line, at=method: line.unary_unary(at)(huge, timeout=60)) != b""
    said: list[object] = []
    crowd = [
        threading.Thread(
            target=lambda: said.append(
                pushed(path, lambda line: line.stream_unary(METHOD)(endless(128), timeout=60))
            )
        )
        for _ in range(12)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert set(said) == {full}
    assert call(path, bytes(60 * MIB), 60) == str(60 * MIB).encode(), "the room is free again"
    assert healthy(path, 60.0)
    # About 180: the room, its copy as one piece, and what gRPC holds. One call of these more would be 300, the crowd 768.
    assert peak() - before < 400


def test_a_caller_that_stays_away_in_the_middle_gives_its_room_back(resident):
    path, _ = resident
    held = threading.Event()

    def half():
        yield from [bytes(MIB)] * 4
        held.wait(30)

    for _ in range(20):
        assert pushed(path, lambda line: line.stream_unary(METHOD)(half(), timeout=0.2)) in {
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
    held.set()

    def free() -> bool:
        try:
            return call(path, bytes(60 * MIB), 20) == str(60 * MIB).encode()
        except FederationError:
            return False

    until("the room is free again", free)
