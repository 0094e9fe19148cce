"""What a masked round costs, in small: bytes are bound here; seconds by `consilium-sim bench secagg` on a quiet machine."""

from __future__ import annotations

from simulations.benchmarks.secagg import costs, table


def test_bytes_of_a_masked_round_with_a_site_that_vanishes():
    plain, masked = costs(5, 500_000, [16])
    assert (plain.aggregation, masked.aggregation) == ("visible", "secure")
    assert 1 <= masked.of_fixed_point <= 1.05
    assert masked.of_fp32 <= 0.55
    assert plain.of_fp32 < 1.01
    assert "secure, 16 bits" in table([plain, masked])
