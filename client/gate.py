"""The door of the site service for a courier under another account: who connects is told by the kernel.

gRPC does not say which account is at the other end of a Unix socket. So the service keeps its own socket to itself, and
this door stands in front of it: a second socket that the courier's group may open. Of each connection the kernel names
the account (SO_PEERCRED, unix(7)); whoever is not the courier, or the service itself, is cut off before a byte is read.
Bytes go through unread in both directions.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from common.errors import SettingsError
from common.logs import Log

_LOG: Final = Log("client.gate")
_CREDENTIALS: Final = struct.Struct("3i")
"""Process, user and group, as the kernel gives them."""
_CHUNK: Final = 1 << 18
_MOST: Final = 32
"""Connections at once; a courier needs one, a node another."""


class Gate:
    """A listening socket at `path`, in front of the one at `inner`.

    Args:
        path: in a folder that the courier's group may enter; made anew.
        inner: the service's own socket.
        users: numbers of the accounts that are let in.
        group: number of the group whose members may try.

    Raises:
        SettingsError: code `socket` when the socket cannot be made there or given to the group.
    """

    def __init__(self, path: Path, inner: Path, users: frozenset[int], group: int) -> None:
        self._path = path
        self._inner = inner
        self._users = users
        self._room = threading.BoundedSemaphore(_MOST)
        self._listener = _listening(path, group)
        self._thread = threading.Thread(target=self._accept, name="gate", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let nobody in any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            user = peer_of(caller)
            if user not in self._users:
                _LOG.warning("gate.refused", user=str(user))
                caller.close()
            elif not self._room.acquire(blocking=False):
                caller.close()
            else:
                threading.Thread(target=self._carry, args=(caller,), name="gate-carry", daemon=True).start()

    def _carry(self, caller: socket.socket) -> None:
        """Both directions, until one side ends."""
        try:
            with caller, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
                service.connect(str(self._inner))
                back = threading.Thread(target=_pump, args=(service, caller), daemon=True)
                back.start()
                _pump(caller, service)
                back.join()
        except OSError:
            return  # the service is away; the caller sees its connection end
        finally:
            self._room.release()


def peer_of(connection: socket.socket) -> int:
    """The number of the account at the other end, when it connected."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(told)[1])


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            end.shutdown(how)


def _listening(path: Path, group: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _folder(path.parent, group)
        path.unlink(missing_ok=True)
        _bind(listener, path)
        os.chown(path, -1, group)
        path.chmod(0o660)
        listener.listen(_MOST)
    except OSError:
        listener.close()
        raise SettingsError(
            "courier.socket",
            "the courier's socket cannot be made, or not be given to its group",
            "Let the service's account write its folder and be a member of the courier's group",
            code="socket",
        ) from None
    return listener


def _folder(folder: Path, group: int) -> None:
    """A folder through which the group may pass; one that is there stays as whoever made it wanted it."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    os.chown(folder, -1, group)
    folder.chmod(0o710)


def _bind(listener: socket.socket, path: Path) -> None:
    """Nobody else can open it in the moment before it is given to the group."""
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
