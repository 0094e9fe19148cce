"""A node of Flower's that ends as a whole.

Flower's SuperNode is three threads: the loop that looks for questions, the sign of life, and the server that executor and
courier speak to. An error that ends one of the first two leaves the process standing: its supervisor sees a running program, the
consortium a hospital that is silent for good. An answer that Flower does not expect is enough (a 500 of a proxy, a TLS
connection that breaks in the middle of a record). Here the process ends with the first thread that fails, and is
started anew within the second; its number is remembered (`client.reentry`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

from common.logs import Log, unforeseen

_LOG: Final = Log("client.node")
FAILED: Final = 1
"""Exit status after an error."""


def as_a_whole(run: Callable[[], object], end: Callable[[int], object] = os._exit) -> None:
    """Run, and end this process with it: also when a thread fails, also when other threads would go on.

    Args:
        run: returns or raises `SystemExit` when all is over.
        end: ends the process with an exit status, whatever its threads do.
    """

    def failed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            unforeseen(_LOG, "node.failed", args.exc_value)
            _over(end, FAILED)

    threading.excepthook = failed
    status = 0
    try:
        run()
    except SystemExit as over:
        status = over.code if isinstance(over.code, int) else FAILED * bool(over.code)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the process must not stand on without its loop
        unforeseen(_LOG, "node.failed", error)
        status = FAILED
    _over(end, status)


def _over(end: Callable[[int], object], status: int) -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    end(status)
