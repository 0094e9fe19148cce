"""Real processes on loopback, killed in the middle of a round: the run goes on by itself, to the same bits."""

from __future__ import annotations

import pytest

from client.deployment import Start, programs
from client.policy import Policy
from client.site import init_site
from common.errors import PolicyRefused
from simulations.faults import matrix
from simulations.faults.matrix import FAULTS, PACE_S, SECURED, SLOW
from simulations.faults.report import SHORT

RECOVERED_S = {"supervisor": 60.0}
"""The promise, counted from the return of the process to the end of the round, less the slow hospital's own work: thirty
seconds, and twice that where everything of one side went down at once."""


def _check(result, faults):
    assert len(result.rows) == len(faults)
    assert result.same_bits
    assert result.everybody
    assert result.twice == 0


def test_a_killed_serverapp_and_a_killed_node_cost_neither_round_nor_bit(tmp_path):
    _check(matrix.run(tmp_path, SHORT), SHORT)


@pytest.mark.slow
def test_every_process_may_be_killed_at_any_moment_and_the_run_goes_on(tmp_path):
    result = matrix.run(tmp_path, FAULTS)
    _check(result, FAULTS)
    for row in result.rows:
        took = row.complete_s - (row.back_s or 0.0) - PACE_S[SLOW]
        assert took < RECOVERED_S.get(row.fault.what, 30.0), row


def test_a_real_hospital_is_never_started_without_tls(tmp_path):
    site = init_site(tmp_path / "real", "real", policy=Policy())
    with pytest.raises(PolicyRefused) as caught:
        programs(Start(site, "127.0.0.1:9092"))
    assert caught.value.code == "loopback"


@pytest.mark.slow
def test_with_tls_the_edge_the_tunnel_and_a_node_with_a_key_of_its_own_may_be_killed_too(tmp_path):
    """Real nginx, real stunnel, enrolled and approving hospitals; the node must be let in again in time."""
    result = matrix.run(tmp_path, SECURED, secured=True)
    _check(result, SECURED)
