"""A sweep's pieces on a Ray cluster: the same jobs, the same errors, nothing left behind."""

from __future__ import annotations

import os
from functools import partial

import pytest

from common.durability import relaxed
from common.errors import FederationError, PlanError
from simulations.board import board
from simulations.cluster import cluster


def _squared(number: int) -> tuple[int, int, bool]:
    return number * number, os.getpid(), relaxed()


def _failing() -> None:
    raise PlanError("plan", [])


@pytest.mark.slow
def test_work_is_done_on_the_cluster_and_errors_are_ours():
    with board() as bars, cluster("local", bars) as crowd:
        assert crowd.size >= 1
        done = list(crowd.do(partial(_squared, number) for number in range(4)))
        assert sorted(value for value, _, _ in done) == [0, 1, 4, 9]
        assert all(pid != os.getpid() and rests for _, pid, rests in done)
        with pytest.raises(PlanError):
            list(crowd.do([_failing]))
    assert not relaxed()


def test_no_cluster_is_said_by_name():
    with board() as bars, pytest.raises(FederationError) as raised, cluster("127.0.0.1:1", bars):
        pass
    assert raised.value.subject == "--ray"
