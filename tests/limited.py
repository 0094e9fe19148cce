"""A command on a disk that is full: every file may grow to a size and no further.

The limit is set by a small program that then becomes the command. `preexec_fn` would do it too, but it
makes Python fork, and gRPC, which other tests leave running in this process, does not survive every fork.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

_BECOME = (
    "import os, resource, sys; size = int(sys.argv[1]);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); os.execv(sys.argv[2], sys.argv[2:])"
)


def limited(size: int, command: Sequence[str | Path]) -> list[str | Path]:
    """The command line that runs `command` with files of at most `size` bytes."""
    return [sys.executable, "-c", _BECOME, str(size), *command]
