"""The race of simulators: the contenders that need no other environment, the record, and what is said of absent ones."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest
import torch

from common.errors import FederationError
from common.models import build
from simulations.benchmarks.planted import planted_plan
from simulations.benchmarks.race_record import Race, Timed
from simulations.benchmarks.simulation import (
    BARE,
    OURS,
    Contender,
    _python,
    _take_turn,
    race,
    race_table,
)
from simulations.benchmarks.simulation_command import BEGIN, END, put, verdict
from simulations.benchmarks.simulators.common_task import Measured, end_family, network


@pytest.fixture(scope="module")
def found(tmp_path_factory):

    return race(tmp_path_factory.mktemp("cache"), 1, ("bare", "consilium, all"), (2,), rounds=2, sites=4)


def test_the_bare_loop_and_this_project_are_timed_round_by_round(found):
    assert [one.name for one in found.contenders] == [BARE.name, OURS.name]
    for one in found.contenders:
        assert not one.absent
        assert len(one.turns[0].rounds_s) == 2
        assert one.startup_s > 0
        assert one.cpu_s > 0
        assert one.memory_mib > 50
    assert [count for count, _ in found.growing] == [2]
    assert race_table(found).row_count == 2


def test_the_tables_go_between_their_marks_and_nothing_else_changes(found, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put(page, found)
    put(page, found)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count("| bare loop, 1 thread |") == 1


def test_everybody_computes_with_the_network_of_the_plan():
    plan = planted_plan(1, 2, 4)
    ours = build(plan.model, 1, (32, 32))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in network().parameters()]
    net = network()
    net.load_state_dict(dict(zip(net.state_dict(), ours.state_dict().values(), strict=True)))
    pixels = torch.randn(3, 1, 32, 32)
    assert torch.equal(net(pixels), ours(pixels))


def test_a_peer_that_cannot_be_had_is_absent_by_name(tmp_path):
    timed = Timed("nobody")
    peer = Contender("nobody", "nobody", packages=("consilium-has-no-such-peer @ file:///nowhere",))
    _python(peer, tmp_path, timed)
    assert timed.absent.startswith("pip cannot install it: ")
    assert "not timed" not in timed.absent


def test_a_peer_that_fails_is_absent_and_ourselves_failing_is_an_error(tmp_path):
    job = (tmp_path, 2, 1, 2)
    timed = Timed("peer")
    _take_turn(Contender("peer", "no_such_module"), sys.executable, job, timed)
    assert "No module named" in timed.absent
    with pytest.raises(FederationError):
        _take_turn(BARE, sys.executable, job, Timed(BARE.name))  # there is no task in this folder


def test_a_peer_ahead_or_a_limit_passed_is_not_a_pass():
    bare, ours = Timed(BARE.name, [Measured(1.0, [1.0, 1.0])]), Timed(OURS.name, [Measured(2.0, [0.9, 0.8])])
    peer = Timed("fluke", [Measured(1.0, [0.9, 0.9])])
    assert Race(100, 2, 10, 2, (bare, ours, peer)).passed
    assert not Race(100, 2, 10, 2, (bare, ours, Timed("fluke", [Measured(1.0, [0.7, 0.7])]))).passed
    assert not Race(100, 2, 10, 2, (bare, Timed(OURS.name, [Measured(2.0, [0.9, 0.86])]), peer)).passed
    assert not Race(100, 2, 10, 2, (bare, Timed(OURS.name, [Measured(3.1, [0.8, 0.8])]), peer)).passed


def test_memory_that_grows_with_the_hospitals_is_not_a_pass_and_the_page_says_which_limit_it_is():
    bare, ours = Timed(BARE.name, [Measured(1.0, [1.0, 1.0])]), Timed(OURS.name, [Measured(2.0, [0.9, 0.8])])
    sizes = ((10, 500.0), (100, 520.0), (1000, 560.0))
    flat = tuple((count, Measured(2.0, [1.0], 1.0, mib)) for count, mib in sizes)
    grown = (*flat[:2], (1000, Measured(2.0, [1.0], 1.0, 600.0)))
    assert Race(100, 2, 10, 2, (bare, ours), flat).passed
    worse = Race(100, 2, 10, 2, (bare, ours), grown)
    assert not worse.passed
    assert verdict(worse).startswith("NOT every limit is kept")
    assert "1.20 of that at the fewest" in verdict(worse)


def test_one_that_takes_minutes_runs_fewer_rounds_and_says_so():
    assert Timed("slow", rounds=2).label == "slow (2 rounds of one turn)"
    assert Timed("slow", rounds=2, sites=10).label == "slow (2 rounds of one turn, 10 hospitals)"
    assert Timed("quick").label == "quick"


def test_what_a_contender_started_ends_with_it_in_whatever_session_it_is():
    script = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(one.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as contender:
        end = os.pidfd_open(int(contender.stdout.readline()))
        try:
            end_family(contender.pid)
            assert select.select([end], [], [], 60)[0], "it is still there"
            assert contender.poll() is None
        finally:
            os.close(end)
            contender.kill()
