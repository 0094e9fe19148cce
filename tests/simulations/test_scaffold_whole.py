"""SCAFFOLD as hospitals and server really run it, against the paper's algorithm written once more in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from client.dataset import load_dataset
from client.service import SiteService
from client.splits import public_bucket
from common.checkpoints import load
from common.models import build, get_arrays
from common.plan import plan_from_dict
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site
from tests.sites import image_site

ROUNDS, STEPS, RATE = 4, 5, 0.02
PLAN = {
    "study": {"name": "whole", "question": "Is it there?"},
    "task": {"kind": "binary", "classes": ["finding"]},
    "input": {"modalities": ["DX"], "shape": [16, 16]},
    "labels": {"source": "synthetic", "provenance": "made for a test"},
    "model": {"name": "linear"},
    "training": {"learning_rate": RATE, "momentum": 0.0, "local_steps": STEPS, "batch_patients": 512, "images_per_patient": 8},
    "federation": {"rounds": ROUNDS, "least_sites": 2},
    "evaluation": {"bootstrap": 100},
}  # fmt: skip


def flat(arrays):
    """All weights in one row, the bias last."""
    named = sorted(arrays.items(), key=lambda item: "bias" in item[0])
    return np.concatenate([np.asarray(values, np.float64).reshape(-1) for _, values in named])


def gradient(weights, part):
    """Of the logistic loss, mean over patients of the mean over their images; the bias is the last weight."""
    x, y, share = part
    residual = (1 / (1 + np.exp(-x @ weights)) - y) * share
    return x.T @ residual


def by_the_paper(model, parts, sizes, corrected):
    """Algorithm 1, option II, with sites weighted as they are in the mean."""
    weight = np.array(sizes) / sum(sizes)
    mean, own = np.zeros_like(model), np.zeros((len(parts), len(model)))
    for _ in range(ROUNDS):
        moved = np.zeros_like(own)
        for k, part in enumerate(parts):
            local = model.copy()
            for _ in range(STEPS):
                local -= RATE * (gradient(local, part) + corrected * (mean - own[k]))
            moved[k] = local - model
        new = own - mean - moved / (STEPS * RATE)
        mean, own = mean + weight @ (new - own), new
        model = model + weight @ moved
    return model


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    for name, patients in (("alpha", 90), ("beta", 60)):
        image_site(home / name, name, patients=patients)
    return Federation(home, ("alpha", "beta"), (), {}, {})


@pytest.mark.parametrize(("strategy", "corrected"), [("fedavg", 0.0), ("scaffold", 1.0)])
def test_the_run_ends_where_the_papers_algorithm_ends(federation, tmp_path, strategy, corrected):
    """With whole batches nothing is drawn, so every weight must agree to single precision."""
    plan = plan_from_dict({**PLAN, "federation": {**PLAN["federation"], "strategy": strategy}}, "a test")
    sites = [arm_site(federation, strategy, name, private=False) for name in federation.names]
    run_in_process([SiteService(site) for site in sites], plan, tmp_path, lambda *_: None, {})
    parts = []
    for site in sites:
        data = load_dataset(site, plan).train
        pixels = data.pixels(np.arange(data.n_images)).reshape(data.n_images, -1).astype(np.float64)
        share = 1 / np.bincount(data.patient_of)[data.patient_of] / data.n_patients
        parts.append((np.c_[pixels, np.ones(len(pixels))], data.labels.reshape(-1), share))
    sizes = [public_bucket(len(part[1])) for part in parts]
    ours = flat(load(tmp_path / "model.safetensors").arrays)
    begin = flat(get_arrays(build(plan.model, 1, (16, 16))))
    assert np.abs(ours - begin).max() > 0.01
    np.testing.assert_allclose(ours, by_the_paper(begin, parts, sizes, corrected), atol=1e-6)
