"""A small real HTTP proxy that knows CONNECT only, as hospitals have one before the world."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Where it listens, and what it was asked to connect to."""

    port: int
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def proxy(*, user: str = "", password: str = "", allow: bool = True) -> Iterator[Proxy]:
    """Run until the block ends; with a user it asks for Basic authentication."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Proxy(server.getsockname()[1])
        wanted = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        threading.Thread(target=_accept, args=(server, made, wanted, allow), daemon=True).start()
        yield made
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, made: Proxy, wanted: str, allow: bool) -> None:
    with contextlib.suppress(OSError):
        while True:
            caller, _ = server.accept()
            threading.Thread(target=_serve, args=(caller, made, wanted, allow), daemon=True).start()


def _serve(caller: socket.socket, made: Proxy, wanted: str, allow: bool) -> None:
    with caller, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := caller.recv(4096)):
                return
            head += more
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ", 2)
        if wanted and not _knows(head, wanted):
            made.refused.append(target)
            caller.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if method != "CONNECT" or not allow:
            made.refused.append(target)
            caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        made.asked.append(target)
        host, _, port = target.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=20) as there:
            caller.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(there, caller), daemon=True)
            back.start()
            _pump(caller, there)
            back.join()


def _knows(head: bytes, wanted: str) -> bool:
    """Whether a request shows the user and password; the scheme's case does not matter (RFC 9110, 11.1)."""
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        scheme, _, word = value.strip().partition(" ")
        if (name.lower(), scheme.lower()) == ("proxy-authorization", "basic"):
            return word == wanted
    return False


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
