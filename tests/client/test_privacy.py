"""Is what is added to the weights what the accountant was told: this clip, this noise, this sampling?"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import re
import typing

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from scipy import stats
from torch import nn

from client.batches import Batch, Roster
from client.learner import Learner
from client.privacy import adaptive
from client.privacy import plan as privacy_plan
from client.privacy.adaptive import AdaptiveClip
from client.privacy.ahead import NoiseAhead
from client.privacy.clipping import MARGIN
from client.privacy.engine import Labelled, PatientGradients, clip_factors
from client.privacy.mechanism import Mechanism
from client.privacy.noise import NoiseSource
from client.privacy.plan import DpPlan
from client.splits import public_bucket
from common import accountants, accounting
from common.errors import PrivacyRefused, WrongOrder
from common.models import build
from common.plan import Plan
from tests.client.few_patients import few_patients, small_plan

BAND = 0.011
"""99.9999% band of the standard deviation of 1e5 coordinates; facts: privacy."""


def private_plan(**sections):
    return small_plan(privacy={"mode": "patient-dp", "clip": 0.5, "steps_per_round": 3}, **sections)


def dp_plan(**changes) -> DpPlan:
    plan = DpPlan(
        sampling_rate=0.5,
        clip=0.5,
        noise_multiplier=1.3,
        images_per_patient=4,
        expected_batch=6.0,
        steps_per_round=3,
        delta=1e-5,
        rounds=3,
    )
    return dataclasses.replace(plan, **changes)


# ---- noise and sampling ------------------------------------------------------------------------------


def test_noise_has_the_standard_deviation_it_is_asked_for():
    noise = NoiseSource().gaussian(200_000, 3.7)
    assert abs(noise.std() / 3.7 - 1) < BAND
    assert abs(noise.mean()) < 5 * 3.7 / math.sqrt(len(noise))


def test_noise_is_gaussian_in_the_tails_too_and_independent_between_neighbours():
    noise = NoiseSource().gaussian(400_000, 1.0)
    assert stats.kstest(noise, "norm").pvalue > 1e-6
    assert abs((noise**4).mean() - 3) < 0.15
    half = len(noise) // 2
    for other in (noise[1 : half + 1], noise[half : 2 * half], noise[32768 : half + 32768]):
        assert abs(np.corrcoef(noise[:half], other)[0, 1]) < 0.012
        assert abs(np.corrcoef(noise[:half] ** 2, other**2)[0, 1]) < 0.012


def test_a_coordinate_is_half_the_sum_of_four_gaussians_of_words_of_its_own():
    """By the book, from a keystream that only a test may know: fewer summands would have the same distribution, and
    give way to who looks at the last bits of one."""
    source, pairs = NoiseSource(), 4
    source._stream, same = (Cipher(ChaCha20(bytes(32), bytes(16)), None).encryptor() for _ in range(2))
    words = np.frombuffer(same.update(bytes(4 * 16 * pairs)), np.uint64).reshape(4, 2, pairs)
    uniform = ((words >> np.uint64(12)) + 0.5) * 2.0**-52
    radius, angle = np.sqrt(-2 * np.log(uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    wanted = np.concatenate([(radius * wave(angle)).sum(axis=0) / 2 for wave in (np.cos, np.sin)])
    assert np.allclose(source.gaussian(2 * pairs, 3.0), 3 * wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 7, 65_536, 65_537])
def test_noise_of_any_length(count):
    assert NoiseSource().gaussian(count, 1.0).shape == (count,)


def test_two_sources_never_agree_and_none_can_be_kept():
    one, two = NoiseSource(), NoiseSource()
    assert not np.intersect1d(one.words(1000), two.words(1000)).size
    for keep in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(WrongOrder):
            keep(one)


def test_noise_made_ahead_is_fresh_in_every_step_and_ends_when_it_should():
    with NoiseAhead(50_000, 2.0, 3) as ahead:
        vectors = [np.concatenate([chunk.copy() for chunk in ahead.take()]) for _ in range(3)]
        with pytest.raises(IndexError):
            ahead.take()
    assert all(abs(v.std() / 2.0 - 1) < 0.02 for v in vectors)
    assert all(abs(np.corrcoef(vectors[a], vectors[b])[0, 1]) < 0.03 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_step_uses_the_noise_made_ahead_at_the_plans_scale():
    learner, dp = (
        learner_for(private_plan(model=BIG), few_patients(6)),
        dp_plan(clip=0.7, noise_multiplier=2.1),
    )
    with (
        PatientGradients(learner.module, learner.loss) as gradients,
        NoiseAhead(gradients.size, dp.noise_std, 2) as ahead,
    ):
        mechanism = Mechanism(learner, dp, gradients, ahead)
        found = []
        for _ in range(2):
            mechanism.gradient(Batch(np.empty(0, np.int64), np.empty(0, np.int64), 0))
            found.append(flat(learner))
    assert abs(float(torch.cat(found).std()) / (2.1 * 0.7 / dp.expected_batch) - 1) < BAND
    assert abs(float(torch.corrcoef(torch.stack(found))[0, 1])) < 0.02


def test_seeds_have_no_power_over_the_noise():
    draws = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 - the global seed is what is under test
        torch.manual_seed(0)
        draws.append(NoiseSource().gaussian(100, 1.0))
    assert not np.array_equal(*draws)


def test_patients_are_drawn_independently_at_the_rate_of_the_plan():
    source, patients, rounds, q = NoiseSource(), 50, 4000, 0.3
    drawn = np.zeros((rounds, patients))
    for row in drawn:
        row[source.poisson_sample(patients, q)] = 1
    assert abs(drawn.mean() - q) < 5 * math.sqrt(q * (1 - q) / drawn.size)
    sizes = drawn.sum(axis=1)
    assert abs(sizes.var() / (patients * q * (1 - q)) - 1) < 0.15, "sizes must vary as a binomial's do"
    correlations = np.corrcoef(drawn.T)[np.triu_indices(patients, 1)]
    assert abs(correlations).max() < 6 / math.sqrt(rounds)


def test_everybody_or_almost_nobody():
    assert len(NoiseSource().poisson_sample(100, 1.0)) == 100
    assert len(NoiseSource().poisson_sample(100, 1e-18)) == 0


def test_a_patient_with_many_images_is_thinned_out_evenly():
    source, images = NoiseSource(), np.arange(100, 120)
    seen = np.zeros(20)
    for _ in range(4000):
        chosen = source.choose(images, 4)
        assert len(np.unique(chosen)) == 4
        seen[chosen - 100] += 1
    assert stats.chisquare(seen).pvalue > 1e-6
    assert np.array_equal(source.choose(images[:3], 4), images[:3])


# ---- clipping ----------------------------------------------------------------------------------------


def learner_for(plan, patients):
    net = build(plan.model, plan.task.outputs, plan.input.shape)
    return Learner.of(net, patients, plan, torch.device("cpu"))


def everyone(learner, most=1000) -> Batch:
    return learner.roster.batch(np.arange(learner.roster.patients), lambda images: images[:most])


def patient_gradient(learner, batch, patient) -> torch.Tensor:
    """By the book: the mean of single backward passes over one patient's images."""
    total = 0.0
    mine = batch.images[batch.slots == patient]
    for image in mine:
        one = Batch(np.array([image]), np.array([0]), 1)
        loss = learner.loss(learner.module(learner.inputs(one)), learner.targets(one)).sum()
        grads = torch.autograd.grad(loss, learner.parameters)
        total = total + torch.cat([g.reshape(-1) for g in grads]).double()
    return total / len(mine)


MODELS = [
    {"name": "small-cnn", "options": {"width": 4, "groups": 2}},
    {"name": "small-cnn", "options": {"width": 4, "groups": 2}, "trainable": "head"},
    {"name": "scatter", "options": {"scales": 2, "grid": 4}},
    {"name": "scatter", "options": {"scales": 2, "grid": 4, "hidden": 5}},
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("most", [1, 3])
def test_the_clipped_sum_is_that_of_single_backward_passes(model, most):
    learner = learner_for(private_plan(model=model), few_patients(9))
    batch = everyone(learner, most)
    by_hand = [patient_gradient(learner, batch, p) for p in range(batch.patients)]
    norms = torch.stack([g.norm() for g in by_hand])
    clip = float(norms.median())
    wanted = clip_factors(norms, clip) @ torch.stack(by_hand)
    with PatientGradients(learner.module, learner.loss) as gradients:
        found = gradients.clipped_sum(
            Labelled(learner.inputs(batch), learner.targets(batch), torch.from_numpy(batch.slots)), clip
        )
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_no_patient_moves_the_clipped_sum_by_more_than_the_clip(model):
    """The patient with 200 images and huge pixel values is the one to worry about."""
    patients = few_patients(6)
    loud = np.repeat(np.arange(7), [1, 1, 1, 1, 1, 1, 200])
    images = np.concatenate([patients.images[:6], 1e3 * np.ones((200, 16, 16), np.float32)])
    labels = np.concatenate([patients.labels[:6], np.zeros((200, 1), np.float32)])
    data = dataclasses.replace(
        patients,
        images=images,
        labels=labels,
        patient_of=loud,
        rows=np.arange(206),
        attributes={},
        pseudonyms=[*"abcdefg"],
        spend_keys=[*"abcdefg"],
    )
    learner, clip = learner_for(private_plan(model=model), data), 1e-3
    with PatientGradients(learner.module, learner.loss) as gradients:
        dp = dp_plan(clip=clip, images_per_patient=1000)
        mechanism = Mechanism(learner, dp, gradients)
        whole = mechanism._clipped(everyone(learner), 64).total.clone()
        for absent in range(7):
            others = np.delete(np.arange(7), absent)
            without = mechanism._clipped(learner.roster.batch(others, lambda i: i), 64).total
            assert float((whole - without).norm()) <= clip * (1 + 1e-6)


@pytest.mark.parametrize("poison", [np.inf, np.nan, 1e38])
def test_a_patient_whose_gradient_is_not_finite_contributes_nothing_and_spoils_nothing(poison):
    data = few_patients(6)
    images = data.images.copy()
    images[data.patient_of == 2] = poison
    learner = learner_for(private_plan(), dataclasses.replace(data, images=images))
    dp, others = dp_plan(), np.array([0, 1, 3, 4, 5])
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp, gradients)
        whole = mechanism._clipped(everyone(learner), 64).total.clone()
        without = mechanism._clipped(learner.roster.batch(others, lambda i: i), 64).total
    assert torch.isfinite(whole).all()
    assert float((whole - without).norm()) <= dp.clip * (1 + 1e-6)


def test_factors_of_zero_small_large_and_infinite_norms():
    norms = torch.tensor([0.0, 0.25, 4.0, math.inf, math.nan], dtype=torch.float64)
    assert clip_factors(norms, 0.5).tolist() == [1.0, 1.0, 0.125 * (1 - MARGIN), 0.0, 0.0]


def test_a_factor_is_never_above_what_the_norm_allows_whoever_rounds_it():
    """As a float32 it is the very number, and times the norm it leaves the margin free; at the bound, too."""
    norms = torch.cat([torch.rand(10_000, dtype=torch.float64).mul(40).sub(20).exp(), torch.ones(1).double()])
    factors = clip_factors(norms, 1.0)
    assert torch.equal(factors.float().double(), factors)
    assert float((factors * norms).max()) <= 1 - MARGIN
    assert float((factors * norms)[norms > 1].min()) > 1 - MARGIN - 1e-6


@pytest.mark.parametrize("images", [1, 2, 5, 1000])
def test_how_the_batch_is_cut_does_not_change_the_sum(images):
    learner = learner_for(private_plan(), few_patients(10))
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp_plan(), gradients)
        found, wanted = (mechanism._clipped(everyone(learner), n).total.clone() for n in (images, 10_000))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


class FullDevice(nn.Module):
    """A network whose device is full after its body, in the forward or in the backward pass."""

    def __init__(self, net, where):
        super().__init__()
        self.net, self.where, self.holds = net, where, 3

    def forward(self, x):
        features = self.net.features(x)
        if len(x) > self.holds and self.where == "forward":
            raise torch.OutOfMemoryError("made up")
        if len(x) > self.holds:
            features.register_hook(self.run_out)
        return self.net.classify(features)

    def run_out(self, _gradient):
        raise torch.OutOfMemoryError("made up")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_running_out_of_memory_half_way_leaves_nothing_behind(where):
    learner = learner_for(private_plan(), few_patients(8, most=3))
    batch, dp = everyone(learner), dp_plan()
    with PatientGradients(learner.module, learner.loss) as gradients:
        wanted = Mechanism(learner, dp, gradients)._clipped(batch, 64).total
    learner.physical.images = 64
    with PatientGradients(FullDevice(learner.net, where), learner.loss) as gradients:
        mechanism = Mechanism(learner, dp, gradients)
        found = learner.physical.attempt(lambda images: mechanism._clipped(batch, images).total)
        assert learner.physical.images < 64
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


class HalfIdle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 1), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_a_parameter_without_a_gradient_is_refused_and_not_left_unprotected():
    inputs, slots = torch.ones(2, 4), torch.arange(2)
    with (
        PatientGradients(HalfIdle(), lambda logits, _targets, _weights: logits[:, 0]) as gradients,
        pytest.raises(PrivacyRefused) as refusal,
    ):
        gradients.clipped_sum(Labelled(inputs, torch.ones(2, 1), slots), 1.0)
    assert refusal.value.code == "dp-unused"


# ---- the mechanism -----------------------------------------------------------------------------------


def flat(learner) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1).double() for p in learner.parameters])


BIG = {"name": "scatter", "options": {"scales": 2, "grid": 4, "hidden": 256}}
"""More than 1e5 trainable numbers, so that the noise's scale is measured to about 1%."""


def test_an_empty_batch_gives_noise_of_the_stated_scale_and_nothing_else():
    learner = learner_for(private_plan(model=BIG), few_patients(6))
    dp = dp_plan(clip=0.7, noise_multiplier=2.1, expected_batch=3.5)
    with PatientGradients(learner.module, learner.loss) as gradients:
        assert gradients.size > 60_000
        mechanism = Mechanism(learner, dp, gradients)
        samples = []
        for _ in range(2):
            mechanism.gradient(Batch(np.empty(0, np.int64), np.empty(0, np.int64), 0))
            samples.append(flat(learner))
    noise = torch.cat(samples)
    assert len(noise) > 1e5
    assert abs(float(noise.std()) / (2.1 * 0.7 / 3.5) - 1) < BAND


def test_noise_on_a_full_batch_is_added_once_and_not_per_part():
    learner = learner_for(private_plan(model=BIG), few_patients(12))
    learner.physical.images = 1
    dp = dp_plan(clip=0.7, noise_multiplier=2.1, expected_batch=3.5)
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism, batch = Mechanism(learner, dp, gradients), everyone(learner)
        clean = mechanism._clipped(batch, 64).total.clone()
        samples = []
        for _ in range(2):
            mechanism.gradient(batch)
            samples.append(flat(learner) * 3.5 - clean)
    noise = torch.cat(samples)
    assert abs(float(noise.std()) / (2.1 * 0.7) - 1) < BAND
    assert abs(float(noise.mean())) < 6 * 2.1 * 0.7 / math.sqrt(len(noise))


def test_the_divisor_is_the_public_constant_whatever_was_drawn():
    learner = learner_for(private_plan(), few_patients(12))
    dp = dp_plan(noise_multiplier=1e-12, expected_batch=5.0)
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp, gradients)
        for patients in (1, 12):
            batch = learner.roster.batch(np.arange(patients), lambda i: i)
            mechanism.gradient(batch)
            found = flat(learner)
            wanted = mechanism._clipped(batch, 64).total / 5.0
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_a_draw_holds_at_most_k_images_of_a_patient_and_can_be_empty():
    data = few_patients(4)
    many = dataclasses.replace(
        data,
        images=np.zeros((503, 16, 16), np.float32),
        rows=np.arange(503),
        labels=np.zeros((503, 1), np.float32),
        patient_of=np.repeat(np.arange(4), [500, 1, 1, 1]),
        attributes={},
    )
    learner = learner_for(private_plan(), many)
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp_plan(images_per_patient=3), gradients)
        batches = [mechanism.draw(np.random.default_rng(0)) for _ in range(200)]
    counts = [np.bincount(b.slots, minlength=b.patients) for b in batches]
    assert max(c.max(initial=0) for c in counts) == 3
    assert min(b.patients for b in batches) == 0
    assert len(np.unique(np.concatenate([b.images for b in batches]))) > 150, "others in every step"


def test_the_hooks_come_off_again():
    learner = learner_for(private_plan(), few_patients(4))
    with PatientGradients(learner.module, learner.loss):
        pass
    assert not any(m._forward_hooks or m._backward_hooks for m in learner.module.modules())
    with PatientGradients(learner.module, learner.loss):
        pass


# ---- the plan ----------------------------------------------------------------------------------------


def test_the_noise_pays_for_every_round_and_the_spare_ones():
    plan = small_plan(
        privacy={"mode": "patient-dp", "epsilon": 5.0, "spare_rounds": 2, "steps_per_round": 4},
        federation={"rounds": 6},
    )
    dp = DpPlan.from_plan(plan, 70)
    assert dp.rounds == 8
    assert dp.expected_batch == pytest.approx(0.25 * 70)
    assert dp.noise_multiplier == accounting.calibrate(5.0, 1e-5, 0.25, 32)
    assert 4.9 < dp.epsilon <= 5.0
    assert accounting.compose([dp.round_event] * 8, dp.delta) == dp.epsilon


def test_the_plan_holds_nothing_that_depends_on_patients():
    """Two hospitals in the same bucket have the same plan; the bucket is public."""
    plan = private_plan()
    assert DpPlan.from_plan(plan, 100) == DpPlan.from_plan(plan, 100)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DpPlan.from_plan(plan, 100).clip = 9.0


def test_nothing_of_patients_can_reach_the_plan():
    """By its types: a study plan, a public bucket and the policy's ceiling go in, numbers of the plan come out."""
    takes = typing.get_type_hints(DpPlan.from_plan)
    assert {name: takes[name] for name in takes if name != "return"} == {
        "plan": Plan, "bucket": int, "max_clip": float,
    }  # fmt: skip
    holds = set(typing.get_type_hints(DpPlan).values()) | set(typing.get_type_hints(AdaptiveClip).values())
    assert holds == {float, int, AdaptiveClip | None}
    for module in (privacy_plan, adaptive, accounting, accountants):
        names = re.findall(r"^(?:from|import) ([\w.]+)", inspect.getsource(module), re.MULTILINE)
        rooms = {name for name in names if name.partition(".")[0] in {"client", "common"}}
        assert rooms <= {"client.privacy.adaptive", "common", "common.accountants", "common.accounting",
                         "common.errors", "common.plan", "common.plan_training"}, module.__name__  # fmt: skip


@pytest.mark.parametrize("adapts", ["flat", "adaptive"])
def test_hospitals_of_one_bucket_train_by_the_same_numbers(adapts):
    """Whoever knows plan, bucket and policy knows q, delta, noise and divisor; more patients change nothing."""
    plan = small_plan(privacy={"mode": "patient-dp", "clipping": adapts})
    sizes = [100, 123, 149]
    made = {DpPlan.from_plan(plan, public_bucket(patients), max_clip=10.0) for patients in sizes}
    assert len(made) == 1
    assert made.pop().expected_batch == 0.25 * 100


@pytest.mark.parametrize(
    ("plan", "bucket", "code"), [(private_plan(), 0, "bucket"), (small_plan(), 100, "not-private")]
)
def test_a_plan_that_cannot_be_private_is_refused(plan, bucket, code):
    with pytest.raises(PrivacyRefused) as refusal:
        DpPlan.from_plan(plan, bucket)
    assert refusal.value.code == code


# ---- batches -----------------------------------------------------------------------------------------


def test_parts_are_whole_patients_and_lose_none():
    batch = Roster(np.repeat(np.arange(5), [3, 1, 7, 2, 2]), 5).batch(np.array([4, 2, 0, 1]), lambda i: i)
    for most in (1, 3, 4, 100):
        parts = list(batch.parts(most))
        assert np.array_equal(np.concatenate([p.images for p in parts]), batch.images)
        assert sum(p.patients for p in parts) == 4
        assert all(len(p.images) <= most or p.patients == 1 for p in parts)
        assert all(np.array_equal(np.unique(p.slots), np.arange(p.patients)) for p in parts)
    assert list(Batch(np.empty(0, np.int64), np.empty(0, np.int64), 0).parts(5)) == []
