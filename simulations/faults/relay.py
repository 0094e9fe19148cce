"""A stretch of network between a hospital and the edge that can be cut: a relay of TCP connections on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_BYTES: Final = 65_536
_HOST: Final = "127.0.0.1"
_CONNECT_S: Final = 5.0


class Relay:
    """Passes bytes both ways between whoever connects and the given port of this machine.

    Args:
        to: port on loopback.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._server = socket.create_server((_HOST, 0))
        self.port = int(self._server.getsockname()[1])
        """Where it listens."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._takes = True
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self) -> None:
        """Drop every connection, and each that comes."""
        self._takes = False
        self._drop()

    def silence(self) -> None:
        """Let nothing pass any more; connections stay, and those that come are taken and hear nothing."""
        self._flows.clear()

    def heal(self) -> None:
        """As before. What stood still is dropped: packets of then come no more, and both ends begin anew."""
        if not self._flows.is_set():
            self._drop()
        self._takes = True
        self._flows.set()

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._drop()
        self._flows.set()

    def _drop(self) -> None:
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                threading.Thread(target=self._joined, args=(caller,), daemon=True).start()

    def _joined(self, caller: socket.socket) -> None:
        with caller, suppress(OSError):
            if not self._takes:
                return
            self._flows.wait()
            with socket.create_connection((_HOST, self._to), _CONNECT_S) as there:
                there.settimeout(None)
                with self._lock:
                    self._open |= {caller, there}
                back = threading.Thread(target=self._pump, args=(there, caller), daemon=True)
                back.start()
                self._pump(caller, there)
                back.join()
                with self._lock:
                    self._open -= {caller, there}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_BYTES):
                self._flows.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(to: int) -> Iterator[Relay]:
    """A relay to this port, ended with the block."""
    made = Relay(to)
    try:
        yield made
    finally:
        made.close()
