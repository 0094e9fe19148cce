"""A sweep's pieces on a Ray cluster: the same jobs, the same errors, nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

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


def _asked_of(address: str, folder: Path, python_path: str = "") -> tuple[int, str]:
    """Exit status and words of a sweep at this address; of a process of its own, as above."""
    words = [
        "sweep",
        "simulations/scenarios/balanced.toml",
        "--set",
        "scenario.seed=1,2",
        "--out",
        str(folder),
    ]
    path = os.pathsep.join(part for part in (python_path, os.environ.get("PYTHONPATH", "")) if part)
    done = subprocess.run(
        [sys.executable, "-m", "simulations.cli", *words, "--ray", address],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert not done.stdout
    return done.returncode, done.stderr


def test_an_address_where_nobody_listens_is_said_before_a_hospital_is_made(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    status, said = _asked_of(f"127.0.0.1:{port}", tmp_path)
    assert status == 7, said
    assert f"--ray 127.0.0.1:{port}: no Ray cluster answers there" in said
    assert "ray start --head" in said
    assert time.monotonic() - began < 90, "Ray itself tries for longer"
    assert not list(tmp_path.rglob("hospitals"))


def test_without_ray_the_command_says_how_to_have_it(tmp_path):
    """A Python in which `import ray` fails as it does where nobody installed it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "ray.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')\n"
    )
    status, said = _asked_of("auto", tmp_path / "runs", str(tmp_path / "path"))
    assert status == 2, said
    assert "Ray is not installed here" in said
    assert "flwr[simulation]" in said


def test_what_is_no_address_is_refused(tmp_path):
    status, said = _asked_of("head-of-the-cluster", tmp_path)
    assert status == 2
    assert "it is no address of a Ray cluster" in said
    assert "HOST:PORT" in said
