"""Where the workers of a simulated federation are forked from, begun before anything heavy is imported here."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from typing import Final

CONTEXT: Final = multiprocessing.get_context("forkserver")
"""Workers are forked from a small process that has imported everything and has no thread (`simulations.warm`)."""
_WARM: Final = "simulations.warm"


def warm_up() -> None:
    """Begin to import what workers need, beside whatever this process does next; see `simulations.warm`."""
    CONTEXT.set_forkserver_preload([_WARM])
    # Read when a library of numbers is loaded: before that, and by the process that is started here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    forkserver.ensure_running()
