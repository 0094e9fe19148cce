"""What only virtual patients can show: the same chest on every scanner, and who gives the scanner away."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.models import Network, build
from common.plan import Plan
from simulations.hospitals import same_chests
from simulations.probes import chests as probes
from simulations.scanners import SCANNERS
from tests.simulations.runs import small

PATIENTS = 8


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return small(tmp_path_factory.mktemp("plan"), test_fraction=0.5).plan_for("federated")


def fixed(plan: Plan, reach: float) -> Network:
    """A network whose trainable weights run from `-reach` to `reach`: no training, no chance."""
    net = build(plan.model, plan.task.outputs, plan.input.shape)
    with torch.no_grad():
        for parameter in net.trainable().values():
            parameter.copy_(torch.linspace(-reach, reach, parameter.numel()).reshape(parameter.shape))
    return net


def test_the_same_patients_lie_under_every_scanner() -> None:
    chests = same_chests(3, PATIENTS)
    assert set(chests.images) == set(SCANNERS)
    assert int(chests.labels.sum()) == PATIENTS // 2
    first, *others = (
        (images.astype(float) - images.mean()) / images.std() for images in chests.images.values()
    )
    for other in others:
        own = [np.corrcoef(first[i].ravel(), other[i].ravel())[0, 1] for i in range(PATIENTS)]
        strangers = [np.corrcoef(first[i].ravel(), other[i - 1].ravel())[0, 1] for i in range(PATIENTS)]
        assert np.mean(own) > np.mean(strangers)


def test_a_network_that_sees_nothing_is_at_chance_and_shifts_nowhere(plan: Plan) -> None:
    rows = probes.same_chest(fixed(plan, 0.0), plan, seed=3, patients=PATIENTS)
    assert {row.scanner for row in rows} == {scanner.manufacturer for scanner in SCANNERS.values()}
    for row in rows:
        assert row.auroc.value == 0.5
        assert row.mean_score_shift == pytest.approx(0.0, abs=1e-12)
        assert row.patients == PATIENTS


def test_shifts_are_from_the_mean_over_scanners_and_replay(plan: Plan) -> None:
    net = fixed(plan, 0.01)
    rows = probes.same_chest(net, plan, seed=3, patients=PATIENTS)
    assert any(abs(row.mean_score_shift) > 1e-4 for row in rows)
    assert sum(row.mean_score_shift for row in rows) == pytest.approx(0.0, abs=1e-9)
    assert probes.same_chest(net, plan, seed=3, patients=PATIENTS) == rows
    assert probes.same_chest(net, plan, seed=4, patients=PATIENTS) != rows
