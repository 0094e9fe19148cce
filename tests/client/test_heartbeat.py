"""What is assumed of Flower, so that a node that was killed is let in again within twenty seconds."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

from flwr.common import constant

from client.heartbeat import INTERVAL_S, NAME, PLACES


def test_the_interval_is_the_shortest_that_flower_allows():
    assert constant.HEARTBEAT_MIN_INTERVAL == INTERVAL_S
    assert constant.HEARTBEAT_PATIENCE * INTERVAL_S < 30


def test_flower_reads_the_interval_where_we_change_it():
    for place in PLACES:
        module = importlib.import_module(place)
        assert getattr(module, NAME) == constant.HEARTBEAT_DEFAULT_INTERVAL
        source = inspect.getsource(module)
        assert source.count(NAME) >= 2  # imported by name, and used


def test_signs_of_life_then_come_well_within_the_interval():
    """In a process of its own: the change is for the life of a process."""
    code = (
        "from client.heartbeat import shorten; shorten(); import flwr.supercore.heartbeat as h;"
        "wait = (h.HEARTBEAT_DEFAULT_INTERVAL - h.HEARTBEAT_CALL_TIMEOUT)"
        "* (h.HEARTBEAT_BASE_MULTIPLIER + max(h.HEARTBEAT_RANDOM_RANGE));"
        "print(wait)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert 0 < float(done.stdout) < INTERVAL_S / 2
