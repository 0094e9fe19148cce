"""A node whose loop failed must not stand there as if it ran: nobody would start it anew, and its hospital would be silent for good."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse

from client.node import command
from tests.world.processes import free_ports

DEADLINE_S = 120
HEAD = """
import sys, threading, time
from client.ending import as_a_whole
from common.logs import configure
configure("INFO")
def another_thread_goes_on():
    threading.Thread(target=time.sleep, args=(1000,)).start()
def a_thread_fails():
    threading.Thread(target=lambda: open("/nowhere/DOE^JANE")).start()
    time.sleep(1000)
def fail():
    raise RuntimeError("DOE^JANE")
"""


def ended(*command_line: str, folder: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command_line, capture_output=True, text=True, check=False, timeout=DEADLINE_S, cwd=folder
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("what", "status", "kind"),
    [
        ("fail()", 1, "runtimeerror"),
        ("a_thread_fails()", 1, "filenotfounderror"),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('why')", 1, ""),
        ("None", 0, ""),
    ],
)
def test_the_process_ends_with_its_first_thread_that_fails_and_with_its_loop(what, status, kind):
    """The other thread would hold it for a quarter of an hour, and the error's own words name a patient."""
    code, said = ended(
        sys.executable, "-c", f"{HEAD}\nas_a_whole(lambda: (another_thread_goes_on(), {what}))"
    )
    assert code == status
    assert ("node.failed" in said) == bool(kind)
    assert kind in said
    assert "DOE" not in said


def test_a_thread_that_ends_by_itself_ends_nothing():
    what = "threading.Thread(target=sys.exit).start(), time.sleep(0.5), sys.exit(5)"
    assert ended(sys.executable, "-c", f"{HEAD}\nas_a_whole(lambda: ({what}))")[0] == 5


def test_flower_s_own_node_ends_when_the_server_says_something_unexpected(tmp_path):
    """It is let in, and then its loop fails at a 500; the thread that speaks to the courier would go on."""
    with server_that_fails() as port:
        words = (
            "--insecure",
            "--superlink",
            f"127.0.0.1:{port}",
            "--isolation",
            "process",
            "--port",
            str(free_ports(1)[0]),
        )
        code, said = ended(*command(tmp_path / "socket", *words), folder=tmp_path)
    assert code == 1
    assert "Uvicorn running" in said, "the other thread was there"
    assert "node.failed" in said
    assert "httpstatuserror" in said


@contextmanager
def server_that_fails() -> Iterator[int]:
    class Fails(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path.endswith(("/register-node", "/activate-node"))
            body = ActivateNodeResponse(node_id=7).SerializeToString() if known else b""
            self.send_response(200 if known else 500)
            self.send_header("Content-Type", "application/protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fails)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
