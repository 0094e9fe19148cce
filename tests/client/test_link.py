"""A server with the right certificate that answers badly: is it said plainly, and nothing of it believed?"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from client.link import Link
from common.certificates import make_key, request
from common.errors import ConsiliumError
from common.pki import Authority

REFUSAL = (
    b'{"code": "code\\u001b[31m", "subject": "x\\ny", "rule": "\\u001b]0;title\\u0007no", "remedy": "'
    + b"r" * 900
    + b'"}'
)


@pytest.fixture(scope="module")
def authority():
    return Authority.make("lungs", b"a long enough passphrase")


@contextmanager
def answering(folder, authority, status: int, body: bytes, version=ssl.TLSVersion.TLSv1_3) -> Iterator[str]:
    """A server at a free port of 127.0.0.71 that always answers the same."""
    (folder / "server.key").unlink(missing_ok=True)
    given = authority.issue_server(request(make_key(folder / "server.key"), "x"), "lungs", ["127.0.0.71"])
    (folder / "server.crt").write_text(given.pem)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "https://127.0.0.72/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.71", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.71:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (502, b"<html>bad gateway", "unavailable"),
        (301, b"", "unavailable"),
        (404, b"", "not-there"),
        (413, b"", "too-large"),
        (429, b"<html>", "busy"),
        (403, b"{}", "certificate"),
        (403, b'{"code": "clock", "subject": "s", "rule": "r", "remedy": "m"}', "clock"),
    ],
)
def test_what_is_no_answer_is_named(tmp_path, authority, status, body, code):
    """A redirect is not followed: the kit's address is the only one."""
    with answering(tmp_path, authority, status, body) as address, pytest.raises(ConsiliumError) as refusal:
        Link(address, authority.pem).ask("POST", "/consilium/v1/enrol", b"{}")
    assert refusal.value.code == code


def test_words_from_outside_cannot_paint_the_terminal(tmp_path, authority):
    with answering(tmp_path, authority, 403, REFUSAL) as address, pytest.raises(ConsiliumError) as refusal:
        Link(address, authority.pem).ask("POST", "/", b"{}")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 1000


def test_an_answer_comes_back_as_it_is_and_old_tls_is_not_spoken(tmp_path, authority):
    with answering(tmp_path, authority, 200, b"\x00fine") as address:
        assert Link(address, authority.pem).ask("POST", "/", b"{}") == b"\x00fine"
    with (
        answering(tmp_path, authority, 200, b"", ssl.TLSVersion.TLSv1_2) as address,
        pytest.raises(ConsiliumError) as refusal,
    ):
        Link(address, authority.pem).ask("POST", "/", b"{}")
    assert refusal.value.code == "tls"


def test_a_password_never_shows(authority):
    link = Link("127.0.0.1:1", authority.pem, "http://house:secret-word@127.0.0.1:1")
    assert "secret-word" not in repr(link)
    with pytest.raises(ConsiliumError) as refusal:
        link.ask("POST", "/", b"")
    assert "secret-word" not in str(refusal.value)
