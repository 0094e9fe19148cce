"""Whom the workers of a simulated federation are forked from: this process, or one that has no thread.

A fork has the one thread that made it; a lock that another one held stays locked for ever. So this process is forked
only while it has no second thread of any kind, Python's or a library's. That is the quickest way: what
workers need is imported once, beside what the server needs. Otherwise they are forked from a small process that has
imported everything (`simulations.warm`), begun before anything else is done here.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Final

_ASIDE: Final = multiprocessing.get_context("forkserver")
_HERE: Final = multiprocessing.get_context("fork")
_WARM: Final = "simulations.warm"
_TASKS: Final = Path("/proc/self/task")


def chosen() -> BaseContext:
    """How to start workers now, with what they need imported, or being imported."""
    # Read when a library of numbers is loaded: before that, and by the process that may be started here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if _alone():
        importlib.import_module(_WARM)
        if _alone():
            return _HERE
    _ASIDE.set_forkserver_preload([_WARM])
    forkserver.ensure_running()
    return _ASIDE


def is_here(context: BaseContext) -> bool:
    """Whether workers of it are forks of this very process, which hold all that it has open."""
    return context is _HERE


def _alone() -> bool:
    """Whether this process has one thread; not where nobody can tell."""
    return _TASKS.is_dir() and len(list(_TASKS.iterdir())) == 1
