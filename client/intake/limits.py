"""What keeps a worker process small, mute and mortal: memory, output, and the life of its parent."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO


def limit_memory(extra_bytes: int) -> None:
    """Let this process grow by so many bytes and no more, and leave no core dump; where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        resource = importlib.import_module("resource")  # absent on some systems
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_cpu(seconds: float) -> None:
    """Let this process use so many more seconds of processor time, over all its threads; then the kernel ends it.

    The clock of the parent limits a file too; this one holds where a codec starts threads, or the parent is held up.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        resource = importlib.import_module("resource")  # absent on some systems
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), most))


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent is killed, so that it does not go on writing; on Linux."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(0)


def private_pipe() -> TextIO:
    """The pipe to the parent; after this, whatever is printed in this process goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers
