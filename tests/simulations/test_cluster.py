"""A sweep's pieces on a Ray cluster: the same jobs, the same errors, nothing left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

_ON_RAY = """
import math, os
from functools import partial
from common.durability import relaxed
from common.errors import PlanError
from simulations.board import board
from simulations.cluster import cluster
from simulations.sweep_grid import grid_of

def main():
    with board() as bars, cluster("local", bars) as crowd:
        done = sorted(crowd.do(partial(math.pow, number, 2) for number in range(4)))
        there = list(crowd.do([os.getpid, relaxed]))
        try:
            list(crowd.do([partial(grid_of, ["nothing"])]))
        except Exception as error:
            said = type(error).__name__
    print(done, os.getpid() in there, True in there, said, relaxed())

main()
"""


@pytest.mark.slow
def test_work_is_done_on_the_cluster_and_errors_are_ours():
    """In a process of its own: Ray leaves files of its own open, which are warnings here."""
    done = subprocess.run([sys.executable, "-c", _ON_RAY], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0.0, 1.0, 4.0, 9.0] False True RayTaskError(InputError) False"
