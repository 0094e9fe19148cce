"""A node looks soon while something is going on, and not for ever as often."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

from client.pace import ANSWER_S, LONGEST_S, LOOP, SHORTEST_S, Clock


def test_a_node_looks_often_at_first_and_once_a_second_at_last():
    slept: list[float] = []
    clock = Clock(slept.append)
    for _ in range(500):
        clock.sleep(3)
    assert slept[0] == SHORTEST_S
    assert slept == sorted(slept)
    assert slept[-1] == LONGEST_S


def test_after_an_answer_it_looks_often_again():
    slept: list[float] = []
    clock = Clock(slept.append, slept.append)
    for seconds in (*[3] * 300, 0.5, 3):
        clock.sleep(seconds)
    assert slept[-2:] == [ANSWER_S, SHORTEST_S]


def test_the_rest_of_the_module_is_there():
    assert Clock().monotonic() > 0


def test_flower_sleeps_where_we_think_it_does():
    source = inspect.getsource(importlib.import_module(LOOP))
    assert source.count("time.sleep(3)") == 1
    assert "import time\n" in source
    assert set(re.findall(r"\btime\.(\w+)", source)) == {"sleep"}


def test_what_is_started_for_every_question_imports_neither_torch_nor_the_service():
    """A courier pays for its imports in every round."""
    code = "import sys, client.app, client.socket; print(sorted(set(sys.modules) & {'torch', 'monai', 'safetensors', 'pydantic', 'pydicom', 'client.service'}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
