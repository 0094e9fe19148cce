"""Nobody, one patient, five hundred images, a vector of noise longer than what may wait: exact at every size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from client.batches import Batch
from client.privacy.ahead import MOST_AHEAD, NoiseAhead, noised
from client.privacy.clipping import clip_factors
from client.privacy.engine import PatientGradients
from client.privacy.mechanism import Mechanism
from client.privacy.noise import NoiseSource
from common.errors import WrongOrder
from tests.client.few_patients import few_patients
from tests.client.test_privacy import dp_plan, everyone, flat, learner_for, patient_gradient, private_plan

NOBODY = Batch(np.empty(0, np.int64), np.empty(0, np.int64), 0)
SILENT = 1e-12
"""A noise multiplier that leaves the sum to be seen."""


def with_images(counts: list[int]):
    """Patients with so many images each."""
    patients, total = few_patients(len(counts)), sum(counts)
    draw = np.random.default_rng(3)
    names = [f"patient-{n}" for n in range(len(counts))]
    return dataclasses.replace(
        patients,
        images=draw.normal(size=(total, 16, 16)).astype(np.float32),
        rows=np.arange(total),
        labels=(draw.random((total, 1)) < 0.5).astype(np.float32),
        patient_of=np.repeat(np.arange(len(counts)), counts),
        attributes={},
        pseudonyms=names,
        spend_keys=names,
    )


@pytest.mark.parametrize("counts", [[1], [500], [1, 500, 2], [1, 1]])
def test_the_step_is_exact_whatever_number_of_images_a_patient_has(counts):
    """Also where the site is smaller than a batch: fewer patients than the divisor expects."""
    learner = learner_for(private_plan(), with_images(counts))
    batch = everyone(learner)
    rows = torch.stack([patient_gradient(learner, batch, p) for p in range(len(counts))])
    norms = rows.norm(dim=1)
    dp = dp_plan(clip=float(norms.min()), noise_multiplier=SILENT, sampling_rate=1.0, expected_batch=6.0)
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp, gradients)
        mechanism.gradient(batch)
    wanted = clip_factors(norms, dp.clip) @ rows / 6.0
    assert float((flat(learner) - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("images", [1, 64], ids=["in several passes", "in one pass"])
def test_nothing_of_a_step_is_left_for_an_empty_one(images):
    """The memory of the sum is used again; an empty batch must not find the patients of the last."""
    learner = learner_for(private_plan(), few_patients(6))
    learner.physical.images = images
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp_plan(noise_multiplier=SILENT), gradients)
        mechanism.gradient(everyone(learner))
        assert float(flat(learner).norm()) > 1e-3
        mechanism.gradient(NOBODY)
    assert float(flat(learner).norm()) < 1e-9


def test_the_bare_sum_is_never_where_an_optimizer_or_a_log_would_look():
    """It is gathered in the memory that the last step's gradients lay in, so those are taken away first."""
    learner = learner_for(private_plan(), few_patients(6))

    def loss(logits, targets, weights):
        assert all(p.grad is None for p in learner.parameters)
        return learner.loss(logits, targets, weights)

    with PatientGradients(learner.module, loss) as gradients:
        mechanism = Mechanism(learner, dp_plan(), gradients)
        for _ in range(2):
            mechanism.gradient(everyone(learner))
            assert all(p.grad is not None for p in learner.parameters)


def test_a_vector_longer_than_what_may_wait_is_whole_and_fresh():
    count = MOST_AHEAD + 100_001
    with NoiseAhead(count, 3.0, 2) as ahead:
        one, two = (np.concatenate([chunk.copy() for chunk in ahead.take()]) for _ in range(2))
    assert len(one) == len(two) == count
    both = np.concatenate([one, two])
    assert len(np.unique(both)) > len(both) - 10, "no chunk is handed out twice"
    assert abs(both.std() / 3.0 - 1) < 0.005


def test_noise_that_nobody_takes_holds_nothing_up():
    with NoiseAhead(3 * MOST_AHEAD, 1.0, 5) as ahead:
        next(ahead.take())
    assert not ahead._hand.is_alive()


def test_what_follows_a_half_taken_vector_is_not_handed_out_as_a_whole_one():
    with NoiseAhead(200_000, 1.0, 2) as ahead:
        next(ahead.take())
        with pytest.raises(WrongOrder):
            ahead.take()


class Broken(NoiseSource):
    def fill(self, out, std):
        raise MemoryError


def test_a_maker_of_noise_that_fails_does_not_leave_the_step_waiting():
    with NoiseAhead(1000, 1.0, 1, Broken()) as ahead, pytest.raises(MemoryError):
        list(ahead.take())


def test_too_little_noise_is_an_error_and_not_a_sum_with_bare_places():
    with pytest.raises(WrongOrder):
        noised(torch.ones(10), [np.ones(9)], 1.0, torch.empty(10))


def test_noise_is_added_and_divided_in_double_precision():
    """Rounded once, at the end; of ten thousand numbers many would show a second time."""
    total, noise = torch.randn(10_000), np.random.default_rng(5).normal(size=10_000)
    out = noised(total, np.split(noise, [3000, 7000]), 3.7, torch.empty(10_000))
    assert torch.equal(out, ((total.double() + torch.from_numpy(noise)) / 3.7).float())
