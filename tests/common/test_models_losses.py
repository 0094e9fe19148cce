"""Losses agree with torch's own, image by image, and stay finite at the ends."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from common import plan
from common.models.losses import Loss, loss_for

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) * 3
MANY = (torch.rand(6, 3, generator=torch.Generator().manual_seed(2)) > 0.5).float()
ONE = torch.tensor([0, 2, 1, 1, 0, 2])


def test_weighted_binary_entropy_is_torchs():
    expected = functional.binary_cross_entropy_with_logits(
        LOGITS, MANY, pos_weight=torch.full((3,), 2.5), reduction="none"
    ).mean(1)
    assert torch.allclose(Loss(exclusive=False, gamma=0, positive_weight=2.5)(LOGITS, MANY), expected)


def test_weighted_entropy_of_classes_is_torchs():
    weights = torch.tensor([1.0, 2.5, 2.5])
    expected = functional.cross_entropy(LOGITS, ONE, weight=weights, reduction="none")
    assert torch.allclose(Loss(exclusive=True, gamma=0, positive_weight=2.5)(LOGITS, ONE), expected)


def test_focal_is_its_formula():
    """Lin et al. 2017: (1 - p)^gamma times the entropy, for one output and for many classes."""
    p = torch.where(MANY > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = (-((1 - p) ** 2) * p.log()).mean(1)
    assert torch.allclose(
        Loss(exclusive=False, gamma=2, positive_weight=1)(LOGITS, MANY), expected, rtol=1e-4
    )
    p = LOGITS.softmax(1)[torch.arange(6), ONE]
    found = Loss(exclusive=True, gamma=2, positive_weight=1)(LOGITS, ONE)
    assert torch.allclose(found, -((1 - p) ** 2) * p.log(), rtol=1e-4, atol=1e-7)


def test_binary_targets_may_come_as_a_row():
    """The data room gives [images, 1]; a plain row means the same, and never broadcasts to a square."""
    loss = Loss(exclusive=False, gamma=0, positive_weight=1)
    assert loss(LOGITS[:, :1], MANY[:, 0]).shape == (6,)
    assert torch.equal(loss(LOGITS[:, :1], MANY[:, 0]), loss(LOGITS[:, :1], MANY[:, :1]))


def test_weights_of_images_multiply():
    loss = Loss(exclusive=False, gamma=0, positive_weight=1)
    weights = torch.tensor([1.0, 0, 2, 1, 1, 1])
    assert torch.equal(loss(LOGITS, MANY, weights), loss(LOGITS, MANY) * weights)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_certainty_gives_finite_losses_and_gradients(exclusive, gamma):
    """A logit of 100, right or wrong, must not break a training step."""
    logits = torch.tensor([[100.0, -100.0], [100.0, -100.0]], requires_grad=True)
    targets = torch.tensor([0, 1]) if exclusive else torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    losses = Loss(exclusive=exclusive, gamma=gamma, positive_weight=1)(logits, targets)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()
    assert losses[1] > 99


def _plan(kind: str, classes: tuple[str, ...], **training) -> plan.Plan:
    return plan.Plan(
        study=plan.Study("trial", "?"),
        task=plan.Task(kind, classes),
        input=plan.Input(("DX",), (64, 64)),
        labels=plan.Labels("csv", "radiologist"),
        model=plan.Model("scatter"),
        training=plan.Training(**training),
    )


def test_the_plan_chooses_the_loss():
    assert loss_for(_plan("binary", ("a",), positive_weight=3.0)) == Loss(False, 0.0, 3.0)
    assert loss_for(_plan("multilabel", ("a", "b"), loss="focal", focal_gamma=1.5)) == Loss(False, 1.5, 1.0)
    assert loss_for(_plan("multiclass", ("a", "b"))) == Loss(True, 0.0, 1.0)
