"""What every worker of a simulated federation needs, imported once: workers are forked from the process that did.

Imported for its effect alone, by a run that is forked itself or by `multiprocessing`'s fork server (`simulations.forks`);
nothing here starts a thread, so that a fork of it is a whole process. The code's digest is worked out here, too: all workers then
run the very files that were there when the first of them started.
"""

from __future__ import annotations

import gc
import os
from importlib import import_module
from typing import Final

from common.code import code_digest

_NEEDED: Final = ("client.app", "client.direct", "client.duties")
_BLOCK: Final = 24 << 20


def _warm_up() -> None:
    """Import all of it, and lay it aside for good.

    Garbage is not collected meanwhile: hardly anything that is imported ever is, and looking through it again and again
    is a sixth of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    # Before any library of numbers: two threads in one process are many times slower where the cores are shared.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    import_module("torch").set_num_threads(1)
    for name in _NEEDED:
        import_module(name)
    code_digest()
    # A large block that is freed makes the C library keep memory it would hand back after each step (mallopt(3),
    # M_MMAP_THRESHOLD): 1,300 page faults less for a hospital and round.
    import_module("numpy").empty(_BLOCK, dtype="uint8")
    gc.freeze()
    if collecting:
        gc.enable()


_warm_up()
