"""Attacks on masked sums: masks alone do not stop an attack on the sum, noise does."""

from __future__ import annotations

import numpy as np

from simulations.attacks import sums
from simulations.attacks.images import chests
from simulations.attacks.target import Target


def test_imprint_on_a_sum_of_three_hospitals():
    rng = np.random.default_rng(0)
    pictures = chests(rng, 4 + 32, 32)
    found = sums.imprinted(Target(), sums.Attacked(pictures[:4], pictures[4:], rng), 3)
    assert (found.attack, found.sites, found.images) == ("imprint", 3, 4)
    assert found.alone >= 3, "the attack must have the power to find what masks alone leave"
    assert found.with_dp == 0
    assert found.with_dp_db < found.alone_db


def test_the_opened_sum_is_the_sum_of_the_updates_within_its_coding():
    rng = np.random.default_rng(1)
    updates = [rng.normal(size=50) for _ in range(8)]
    most = max(float(np.abs(update).max()) for update in updates)
    np.testing.assert_allclose(sums._opened(updates), sum(updates), atol=8 * 8 * 2 * most / 2**23)
