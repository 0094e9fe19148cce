"""The review page's server: on the loopback of this machine, until Ctrl-C or until nobody comes any more."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

import uvicorn

from client.review.app import Review
from client.review.desk import ReviewDesk
from client.review.painter import Painter
from client.site import Site
from common.errors import InputError
from common.pages.door import Door

_HOST: Final = "127.0.0.1"
_LOOK_S: Final = 1.0


def serve(site: Site, port: int, idle_s: float, ready: Callable[[str], None]) -> None:
    """Serve the page until somebody stops it.

    Args:
        site: whose images wait.
        port: of 127.0.0.1; 0: any that is free.
        idle_s: seconds without a request after which it stops by itself.
        ready: called with the address that opens once, when it can be opened.

    Raises:
        InputError: `review-port`: the port is taken.
    """
    with _listening(port) as listener, Painter() as painter:
        review = Review(ReviewDesk(site, painter))
        door = Door(review.app(), listener.getsockname()[1])
        review.nonce = door.nonce
        config = uvicorn.Config(
            door,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            http="h11",
        )
        server = uvicorn.Server(config)
        watch = threading.Thread(target=_watch, args=(server, door, idle_s), daemon=True)
        watch.start()
        ready(door.address)
        with _stopping(), suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        server.should_exit = True
        review.close()
        watch.join()


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((_HOST, port))
    except OSError:
        raise InputError(
            f"port {port}",
            "another program listens there, or it is not allowed",
            "Leave --port out",
            code="review-port",
        ) from None
    with listener:
        yield listener


def _watch(server: uvicorn.Server, door: Door, idle_s: float) -> None:
    while not server.should_exit:
        time.sleep(min(_LOOK_S, idle_s / 4))
        if door.idle_s > idle_s:
            server.should_exit = True


@contextmanager
def _stopping() -> Iterator[None]:
    """Let the server's own end, after the last answer, be an ordinary one for both signals."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
