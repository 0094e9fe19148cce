"""Every network, every trainable part: the clipped sum is that of single backward passes, patient by patient."""

from __future__ import annotations

import pytest
import torch

from client.privacy.bookkeeping.engine import BookKeeping
from client.privacy.clipping import clip_factors
from client.privacy.engine import Labelled, PatientGradients
from common.models.losses import Loss
from tests.contracts.test_networks import PAIRS, PIXELS, small

LOSS = Loss(exclusive=False, gamma=0.0, positive_weight=2.0)
SLOTS = {"one image each": [0, 1, 2, 3], "two each": [0, 0, 1, 1], "uneven": [0, 1, 1, 1]}


@pytest.mark.parametrize("slots", SLOTS.values(), ids=list(SLOTS))
@pytest.mark.parametrize(("name", "trainable"), PAIRS)
def test_the_clipped_sum_is_that_of_single_passes(name, trainable, slots):
    """In float64, for the reason that test_networks gives; no patient's share is longer than the clip."""
    net = small(name, trainable).double().train()
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(len(slots), 1, PIXELS, PIXELS, generator=draw, dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    each = torch.ones(len(slots), dtype=torch.float64)
    rows = []
    for patient in range(max(slots) + 1):
        mine = [n for n, slot in enumerate(slots) if slot == patient]
        passes = [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        LOSS(net(x[n : n + 1]), y[n : n + 1], each[:1]).sum(), list(net.trainable().values())
                    )
                ]
            )
            for n in mine
        ]
        rows.append(torch.stack(passes).mean(0))
    norms = torch.stack(rows).norm(dim=1)
    clip = float(norms.min() + norms.max()) / 2
    assert norms.min() < clip < norms.max(), "some are clipped and some are not"
    wanted = clip_factors(norms, clip) @ torch.stack(rows)
    engine = PatientGradients(net, LOSS)
    assert isinstance(engine, BookKeeping), "the quick engine knows every network"
    with engine as gradients:
        found = gradients.clipped_sum(Labelled(x, y, torch.tensor(slots)), clip)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-9
