"""Masked rounds between real processes on loopback: a hospital and the server go down in one round, and the sum is exact."""

from __future__ import annotations

import numpy as np
import pytest

from common.checkpoints import load
from server.start import start_of
from simulations.faults import masked
from simulations.faults.masked import LEAVES, SITES
from simulations.faults.toy import target_of


def _by_hand(rounds):
    """Half way to the weighted mean of the targets; in the last round to that of the survivors."""
    model = {n: a.astype(np.float64) for n, a in start_of(masked.plan_of(rounds)).arrays.items()}
    for number in range(1, rounds + 1):
        sites = {s: w for s, w in SITES.items() if number < rounds or s != LEAVES}
        for name, array in model.items():
            mean = sum(w * target_of(s, name, array.shape).astype(np.float64) for s, w in sites.items())
            model[name] = array + (mean / sum(sites.values()) - array) / 2
    return model


def _check(result, rounds):
    assert result.same_bits, "the sum over the survivors is exact"
    assert result.summed == (*[len(SITES)] * (rounds - 1), len(SITES) - 1)
    assert result.record.subset
    assert all(round_.masked for round_ in result.record.rounds)
    assert result.attempts >= 2, "the server was killed, and went on where it was"
    assert result.twice == 0
    assert set(result.sworn) >= set(SITES) - {LEAVES}
    found = load(result.model).arrays
    for name, array in _by_hand(rounds).items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_a_hospital_goes_for_good_and_the_server_is_killed_in_the_same_masked_round(tmp_path):
    _check(masked.run(tmp_path, rounds=1), 1)


@pytest.mark.slow
def test_two_masked_rounds_over_tls_with_a_killed_service_and_then_a_hospital_that_goes(tmp_path):
    """Real nginx, real stunnel, enrolled and approving hospitals."""
    _check(masked.run(tmp_path, rounds=2, secured=True), 2)
