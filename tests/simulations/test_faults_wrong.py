"""Hospitals that answer wrongly, end to end: put aside by name, and nothing of them in the model."""

from __future__ import annotations

import pytest

from simulations.faults import wrong


@pytest.mark.parametrize("name", wrong.CASES)
def test_a_wrong_hospital_is_named_and_put_aside_and_the_others_go_on(tmp_path, name):
    outcome = wrong.run(tmp_path, name)
    assert outcome.code == wrong.CASES[name].code
    assert outcome.noted
    assert outcome.clean
