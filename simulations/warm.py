"""What every worker of a simulated federation needs, imported once: workers are forked from the process that did.

Imported for its effect alone, by a run that is forked itself or by `multiprocessing`'s fork server (`simulations.forks`);
nothing here starts a thread, so that a fork of it is a whole process. The code's digest is worked out here, too: all workers then
run the very files that were there when the first of them started.
"""

from __future__ import annotations

import gc
import os

# Before any library of numbers: two threads in one process are many times slower where the cores are shared.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import torch

import client.app
import client.direct
import client.duties  # noqa: F401 - its torch and its readers are what takes long
from common.code import code_digest

torch.set_num_threads(1)
code_digest()
# A large block that is freed makes the C library keep memory it would hand back after each step (mallopt(3),
# M_MMAP_THRESHOLD): 1,300 page faults less for a hospital and round.
np.empty(24 << 20, dtype=np.uint8)
gc.collect()
gc.freeze()
