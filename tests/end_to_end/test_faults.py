"""Real processes on loopback, killed in the middle of a round: the run goes on by itself, to the same bits."""

from __future__ import annotations

import pytest

from client.deployment import Start, programs
from client.policy import Policy
from client.service import GRACE_S
from client.site import init_site
from common.errors import PolicyRefused
from simulations.faults import hung, matrix
from simulations.faults.cases import ALL, CUT, FAULTS, SECURED
from simulations.faults.matrix import PACE_S
from simulations.faults.report import SHORT

RECOVERED_S = 30.0
"""The promise, counted from the return of the process to the end of the round, less the slow hospital's own work."""
_BUSY_S = 90.0
"""Of a machine that has other things to do; `docs/faults.md` holds what was measured."""


def _check(result, faults):
    assert len(result.rows) == len(faults)
    for row in result.rows:
        assert row.well, row
        assert row.complete_s - PACE_S < RECOVERED_S + _BUSY_S, row
    assert result.whole


def _of(faults, *words):
    return [fault for fault in faults if all(word in fault.name for word in words)]


def test_a_killed_serverapp_and_a_killed_node_cost_neither_round_nor_bit(tmp_path):
    _check(matrix.run(tmp_path, SHORT), SHORT)


def test_a_hospital_whose_network_is_cut_comes_back_to_the_same_round(tmp_path):
    """Over real nginx and stunnel; the connections stay open and nothing passes, as when a cable is pulled."""
    silent = _of(CUT, "silent-20-training")
    _check(matrix.run(tmp_path, silent), silent)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["server", "beta"])
def test_every_process_may_be_killed_at_any_moment_and_the_run_goes_on(tmp_path, side):
    chosen = [fault for fault in FAULTS if fault.side == side]
    _check(matrix.run(tmp_path, chosen), chosen)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["server", "beta"])
def test_with_tls_every_process_may_be_killed_too(tmp_path, side):
    """Real nginx, real stunnel, enrolled and approving hospitals; the node must be let in again in time."""
    chosen = [fault for fault in SECURED if fault.side == side]
    _check(matrix.run(tmp_path, chosen), chosen)


@pytest.mark.slow
def test_a_network_that_is_cut_and_processes_that_stand_still_cost_no_bit(tmp_path):
    _check(matrix.run(tmp_path, CUT), CUT)


@pytest.mark.slow
def test_a_hospital_that_hangs_is_ended_after_one_deadline_and_trains_in_the_next_round(tmp_path):
    found = hung.run(tmp_path)
    assert found.well, found
    assert found.freed_s >= found.deadline_s * 0.9 + GRACE_S


def test_every_fault_has_a_name_of_its_own():
    assert len({fault.name for fault in ALL}) == len(ALL)


def test_a_real_hospital_is_never_started_without_tls(tmp_path):
    site = init_site(tmp_path / "real", "real", policy=Policy())
    with pytest.raises(PolicyRefused) as caught:
        programs(Start(site, "127.0.0.1:9092"))
    assert caught.value.code == "loopback"
