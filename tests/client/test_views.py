"""K images or K augmented views: does a patient with one image enter K times, in K different shapes, and clipped once?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from client import augment
from client.batches import at_random, up_to
from client.learner import Learner
from client.privacy.engine import Labelled, PatientGradients
from client.privacy.mechanism import Mechanism
from client.privacy.noise import NoiseSource
from client.privacy.plan import DpPlan
from client.training import train
from common.models import build
from tests.client.few_patients import few_patients, small_plan

AUGMENT = {"augmentation": {"rotation_deg": 10.0, "noise_std": 0.1}}
PRIVATE = {"mode": "patient-dp", "clip": 0.1, "epsilon": 8.0, "sampling_rate": 1.0, "steps_per_round": 1}


def takes(most, *, views, choose=None):
    return up_to(most, choose or at_random(np.random.default_rng(0)), views=views)


@pytest.mark.parametrize("choose", [at_random(np.random.default_rng(0)), NoiseSource().choose])
@pytest.mark.parametrize("most", [1, 4, 7])
@pytest.mark.parametrize("images", [1, 2, 3, 4, 500])
def test_a_patient_enters_with_exactly_k_where_there_are_views(choose, most, images):
    """Each image at least once where there is room, and none more than once oftener than another."""
    mine = np.arange(images) + 10
    found = takes(most, views=True, choose=choose)(mine)
    assert len(found) == most
    assert set(found) <= set(mine)
    counts = np.bincount(found - 10, minlength=images)
    if images <= most:
        assert counts.max() - counts.min() <= 1
    else:
        assert counts.max() == 1
    assert (np.diff(found) >= 0).all()


def test_without_augmentation_an_image_is_not_repeated():
    """Its gradient would only be computed twice."""
    assert list(takes(4, views=False)(np.arange(2))) == [0, 1]


def test_a_patient_without_an_image_contributes_nothing():
    assert len(takes(4, views=True)(np.empty(0, np.int64))) == 0


def learner_with(k: int) -> Learner:
    plan = small_plan(privacy=PRIVATE, training={**AUGMENT, "images_per_patient": k})
    net = build(plan.model, plan.task.outputs, plan.input.shape)
    return Learner.of(net, few_patients(6, most=2), plan, torch.device("cpu"))


@pytest.mark.parametrize("k", [1, 4])
def test_a_private_draw_holds_k_different_views_of_everybody(k):
    learner = learner_with(k)
    dp = DpPlan(1.0, 0.1, 1.0, k, 6.0, 1, 1e-5, 1)
    with PatientGradients(learner.module, learner.loss) as gradients:
        batch = Mechanism(learner, dp, gradients).draw(np.random.default_rng(0))
        assert list(np.bincount(batch.slots)) == [k] * 6
        views = learner.inputs(batch).flatten(1)
        assert len(torch.unique(views, dim=0)) == len(views), "each is augmented anew"
        alone = next(iter(batch.parts(k)))
        sums = gradients.clipped_sum(_labelled(learner, alone), dp.clip)
    assert float(sums.norm()) <= dp.clip * (1 + 1e-6), "however many views, one clip"


def _labelled(learner, part):
    return Labelled(learner.inputs(part), learner.targets(part), torch.from_numpy(part.slots))


def test_training_without_privacy_sees_as_many_views():
    """The comparison over epsilon must not differ in anything but the noise and the clip."""
    plan = small_plan(training={**AUGMENT, "images_per_patient": 4})
    net = build(plan.model, plan.task.outputs, plan.input.shape)
    assert train(net, few_patients(6, most=2), plan, dp=None, round=1).images_seen == 6 * 4


def test_nobody_can_foretell_the_views_of_a_private_round():
    """Views go to images by their place in the batch. From a seed that the server knows, the absence of one patient
    would change the views of everybody after, and with them the sum by many clips."""
    plan, data = (
        small_plan(privacy=PRIVATE, training={**AUGMENT, "images_per_patient": 1}),
        few_patients(6, most=1),
    )
    dp = DpPlan(1.0, 0.1, 1e-9, 1, 6.0, 1, 1e-5, 1)
    bare = dataclasses.replace(plan, training=small_plan().training)

    def change(some):
        net = build(some.model, some.task.outputs, some.input.shape)
        delta = train(net, data, some, dp=dp, round=1).delta
        return np.concatenate([one.ravel() for one in delta.values()])

    step = np.linalg.norm(change(bare))
    assert np.linalg.norm(change(bare) - change(bare)) < 1e-4 * step, "everything else is the same twice"
    assert np.linalg.norm(change(plan) - change(plan)) > 1e-2 * step


def test_views_change_nothing_but_their_own_image():
    """An augmented view is a function of one image and its draws: no patient is mixed into another's."""
    x = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    strengths = dataclasses.replace(small_plan(training=AUGMENT).training.augmentation, elastic_px=1.0)
    draws = augment.draw(np.random.default_rng(0), strengths, 4)
    other = x.clone()
    other[3] += 1
    assert torch.equal(augment.apply(draws, x)[:3], augment.apply(draws, other)[:3])
