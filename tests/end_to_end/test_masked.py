"""Masked rounds between the real ServerApp, the real courier and real site services, in one process."""

from __future__ import annotations

import numpy as np

from client import direct
from common.checkpoints import load
from server.start import start_of
from simulations.grid import InProcessGrid, run_on
from tests.masked import NAMES, enrolled, masked_plan
from tests.toy import target_of


def _run(folder, services, plan, grid=InProcessGrid, **options):
    for service in services:
        direct.host(service)
    return run_on(grid([service.site.folder for service in services], **options), plan, folder / "out")


def _by_hand(plan, sites):
    """Where the toy federation must come to: half way to the weighted mean of the targets, each round."""
    model = {name: a.astype(np.float64) for name, a in start_of(plan).arrays.items()}
    for _ in range(plan.federation.rounds):
        for name, array in model.items():
            mean = sum(w * target_of(s, name, array.shape).astype(np.float64) for s, w in sites.items())
            model[name] = array + (mean / sum(sites.values()) - array) / 2
    return model


def test_the_sum_under_masks_is_the_weighted_mean_worked_out_by_hand(tmp_path):
    sites = dict(zip(NAMES, (100, 200, 50, 100, 300), strict=False))
    plan = masked_plan(tuple(sites))
    record = _run(tmp_path, enrolled(tmp_path, tuple(sites), list(sites.values())), plan)
    assert record.status == "completed"
    assert record.trained == tuple(sorted(sites))
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, sites).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)
