"""More than 20 hospitals: masks and shares along the sparse graph, between real site services, with eleven of 24 gone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from common import envelope, wire
from common.checkpoints import load
from common.errors import SubsetError
from common.messages import Kind, Shares
from common.secagg.graph import neighbourhood, withstood
from tests.end_to_end.test_masked import Leaving, _by_hand, _run, instruction_in
from tests.masked import enrolled, masked_plan

SITES = tuple(f"site-{number:02}" for number in range(24))
RULE = neighbourhood(24, 13, withstood(24, 13))
SHORT = {"rounds": 1, "deadline_s": 10.0, "quorum_sites": 13, "quorum_grace_s": 0.1}


class Counting(Leaving):
    """A grid that counts for how many others each hospital shares out."""

    dealt: ClassVar[list[int]] = []

    def deliver(self, message):
        replies = super().deliver(message)
        if instruction_in(message).kind is Kind.SHARES and not replies[0].has_error():
            blob = wire.from_records(replies[0].content)
            reply = wire.unpack(envelope.split(blob)[1] if envelope.is_sealed(blob) else blob)
            if isinstance(reply, Shares):
                self.dealt.append(len(reply.dealt.sealed))
        return replies


def _grid(gone, stage):
    leave = {number: stage for number in range(1, len(SITES) + 1) if number % 2 == 0}
    return type("Here", (Counting,), {"leave": dict(list(leave.items())[:gone]), "dealt": []})


def test_the_graph_of_24_hospitals_is_sparse():
    assert (RULE.size, RULE.threshold) == (14, 4)


@pytest.mark.parametrize("stage", [Kind.TRAIN, Kind.UNMASK])
def test_eleven_of_24_vanish_and_the_sum_of_the_rest_is_exact(tmp_path, stage):
    plan, grid = masked_plan(SITES, **SHORT), _grid(11, stage)
    record = _run(tmp_path, enrolled(tmp_path, SITES), plan, grid)
    assert record.status == "completed"
    assert len(record.trained) == (13 if stage is Kind.TRAIN else 24)
    assert grid.dealt == [RULE.size] * 24, "each shared out to its neighbours, not to everybody"
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_twelve_of_24_gone_is_one_too_many(tmp_path):
    services = enrolled(tmp_path, SITES)
    with pytest.raises(SubsetError, match="given up"):
        _run(tmp_path, services, masked_plan(SITES, **SHORT), _grid(12, Kind.TRAIN))
    assert not (tmp_path / "out" / "model.safetensors").exists()
