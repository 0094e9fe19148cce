"""Does C find its quantile, and does finding it cost exactly what the ledger charges?"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from client import policy
from client.batches import Batch
from client.policy import Policy
from client.privacy.adaptive import AdaptiveClip
from client.privacy.ahead import NoiseAhead
from client.privacy.bookkeeping.engine import BookKeeping
from client.privacy.clipping import Labelled
from client.privacy.engine import PatientGradients
from client.privacy.mechanism import Mechanism
from client.privacy.opacus_engine import OpacusGradients
from client.privacy.plan import DpPlan
from client.training import train
from common.accounting import DpEventSpec, compose
from common.errors import PlanError, PolicyRefused, PrivacyRefused
from common.models import build
from tests.client.few_patients import few_patients, small_plan
from tests.client.test_privacy import (
    BAND,
    BIG,
    dp_plan,
    everyone,
    flat,
    learner_for,
    patient_gradient,
    private_plan,
)

EMPTY = Batch(np.empty(0, np.int64), np.empty(0, np.int64), 0)
ADAPTIVE = {"mode": "patient-dp", "clipping": "adaptive", "steps_per_round": 3}
RULE = AdaptiveClip(quantile=0.5, learning_rate=0.2, count_std=2.6, least=1e-3, most=10.0)


def adaptive_plan(**privacy):
    return small_plan(privacy={**ADAPTIVE, **privacy})


# ---- the count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [BookKeeping, OpacusGradients])
def test_the_count_is_that_of_single_backward_passes(engine):
    learner = learner_for(private_plan(), few_patients(9))
    batch = everyone(learner, 3)
    norms = sorted(float(patient_gradient(learner, batch, p).norm()) for p in range(batch.patients))
    labelled = Labelled(learner.inputs(batch), learner.targets(batch), torch.from_numpy(batch.slots))
    with engine(learner.module, learner.loss) as gradients:
        for least in range(len(norms) + 1):
            edges = [0.0, *norms, 2 * norms[-1]]
            found = gradients.clipped(labelled, (edges[least] + edges[least + 1]) / 2)
            assert int(found.within) == least
            assert torch.equal(
                found.total, gradients.clipped_sum(labelled, (edges[least] + edges[least + 1]) / 2)
            )


@pytest.mark.parametrize("engine", [BookKeeping, OpacusGradients])
@pytest.mark.parametrize("broken", [1, 6])
def test_a_patient_whose_gradient_is_not_finite_is_not_within(engine, broken):
    """One bit from each patient, whatever they hold: the sensitivity of one half needs it."""
    data = few_patients(6)
    images = data.images.copy()
    images[data.patient_of < broken] = np.nan
    learner = learner_for(private_plan(), dataclasses.replace(data, images=images))
    batch = everyone(learner)
    labelled = Labelled(learner.inputs(batch), learner.targets(batch), torch.from_numpy(batch.slots))
    with engine(learner.module, learner.loss) as gradients:
        assert int(gradients.clipped(labelled, 1e6).within) == 6 - broken


@pytest.mark.parametrize("images", [1, 2, 1000])
def test_how_the_batch_is_cut_does_not_change_the_count(images):
    learner = learner_for(private_plan(), few_patients(10))
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp_plan(clip=0.9), gradients)
        found = mechanism._clipped(everyone(learner), images)
        assert int(found.within) == int(mechanism._clipped(everyone(learner), 64).within)
        assert int(mechanism._clipped(EMPTY, images).within) == 0


# ---- the price -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count_noise", [0.51, 1.0, 2.0, 50.0])
def test_sum_and_count_together_are_one_release_of_the_calibrated_noise(count_noise):
    """Theorem 1 of Andrew et al. 2021, as lengths: what a patient moves, each part in units of its noise."""
    dp = DpPlan.from_plan(adaptive_plan(count_noise=count_noise), 50)
    assert dp.adaptive is not None
    moved = math.hypot(1 / dp.sum_multiplier, 0.5 / dp.adaptive.count_std)
    assert moved == pytest.approx(1 / dp.noise_multiplier, rel=1e-12)
    assert dp.sum_multiplier > dp.noise_multiplier


def test_the_ledger_is_charged_the_same_event_as_for_a_fixed_clip():
    flat_dp, adaptive = (
        DpPlan.from_plan(adaptive_plan(clipping="flat"), 50),
        DpPlan.from_plan(adaptive_plan(), 50),
    )
    assert adaptive.round_event == flat_dp.round_event == adaptive.carrying(0.2).round_event
    assert adaptive.epsilon == flat_dp.epsilon


def test_two_releases_charged_apart_cost_what_the_pair_is_charged():
    """Without sampling a pair of Gaussians is exactly one: the accountant agrees with the theorem."""
    z, rule = 3.0, dataclasses.replace(RULE, count_std=4.0)
    pair = [DpEventSpec(1.0, rule.sum_multiplier(z), 10), DpEventSpec(1.0, 2 * rule.count_std, 10)]
    assert compose(pair, 1e-5) == pytest.approx(compose([DpEventSpec(1.0, z, 10)], 1e-5), rel=1e-3)


def test_a_count_that_alone_costs_more_than_both_may_is_refused():
    with pytest.raises(PrivacyRefused) as refusal:
        dataclasses.replace(RULE, count_std=1.0).sum_multiplier(2.0)
    assert refusal.value.code == "dp-count-noise"


@pytest.mark.parametrize("made_ahead", [False, True])
def test_the_noise_on_sum_and_count_has_the_scale_that_was_paid_for(made_ahead):
    """An empty batch is noise alone, the second one at the C that the first one's count led to."""
    learner = learner_for(private_plan(model=BIG), few_patients(6))
    dp = dp_plan(
        clip=0.7, noise_multiplier=2.0, expected_batch=3.5, adaptive=dataclasses.replace(RULE, most=1e9)
    )
    with (
        PatientGradients(learner.module, learner.loss) as gradients,
        NoiseAhead(gradients.size, dp.noise_std, 4) as ahead,
    ):
        mechanism, clips, sums = Mechanism(learner, dp, gradients, ahead if made_ahead else None), [], []
        for _ in range(4):
            clips.append(mechanism.clip)
            mechanism.gradient(EMPTY)
            sums.append(flat(learner) * dp.expected_batch / mechanism_scale(dp, clips[-1]))
    assert len(set(clips)) == 4, "C moved in every step"
    assert all(abs(float(noise.std()) - 1) < 2 * BAND for noise in sums), "of every step, not on average"


def mechanism_scale(dp, clip):
    """By hand: (z^-2 - (2 sigma_b)^-2)^(-1/2) C."""
    return clip / math.sqrt(dp.noise_multiplier**-2 - (2 * dp.adaptive.count_std) ** -2)


def test_noise_made_ahead_follows_the_clip():
    plan = small_plan(
        model=BIG,
        privacy={**ADAPTIVE, "steps_per_round": 1, "clip": 0.3, "epsilon": 1.0},
        training={"momentum": 0.0, "learning_rate": 1.0},
    )
    dp = DpPlan.from_plan(plan, 10)
    dp = dataclasses.replace(dp, noise_multiplier=1.5, expected_batch=5.0, sampling_rate=1e-9)
    dp = dataclasses.replace(dp, adaptive=dataclasses.replace(RULE, least=1e-9))
    net = build(plan.model, 1, plan.input.shape)
    result = train(net, few_patients(6), plan, dp=dp.carrying(0.05), round=1)
    noise = np.concatenate([array.reshape(-1) for array in result.delta.values()])
    assert abs(noise.std() / (mechanism_scale(dp, 0.05) / 5.0) - 1) < 2 * BAND
    assert result.clip not in (None, 0.05)


def test_the_noise_on_the_count_is_sigma_b_and_unpredictable():
    learner = learner_for(private_plan(), few_patients(6))
    dp = dp_plan(adaptive=RULE)
    with PatientGradients(learner.module, learner.loss) as gradients:
        np.random.seed(0)  # noqa: NPY002 - the global seed is what must have no power here
        torch.manual_seed(0)
        mechanism = Mechanism(learner, dp, gradients)
        counts = np.array([mechanism._noisy_count(2.5, RULE) for _ in range(8_000)])
    assert abs(counts.mean() - 2.5) < 6 * RULE.count_std / math.sqrt(len(counts))
    assert abs(counts.std() / RULE.count_std - 1) < 0.05
    assert len(np.unique(counts)) == len(counts)


def test_each_step_clips_to_where_the_count_before_it_put_c():
    """By hand, with next to no noise: the count less half the drawn moves C, and the next sum is clipped to it."""
    learner = learner_for(private_plan(), few_patients(9))
    rule = dataclasses.replace(RULE, learning_rate=2.0, count_std=1e-9, quantile=0.3, most=1e6)
    dp = dp_plan(clip=0.9, noise_multiplier=1e-12, expected_batch=7.0, adaptive=rule)
    batch, clip = everyone(learner), dp.clip
    labelled = Labelled(learner.inputs(batch), learner.targets(batch), torch.from_numpy(batch.slots))
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp, gradients)
        for _ in range(4):
            wanted = gradients.clipped(labelled, clip)
            mechanism.gradient(batch)
            assert float((flat(learner) * 7.0 - wanted.total).norm() / wanted.total.norm()) < 1e-5
            clip *= math.exp(-2.0 * ((int(wanted.within) - 9 / 2) / 7.0 + 0.5 - 0.3))
            assert mechanism.clip == pytest.approx(clip, rel=1e-6)


# ---- where C goes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("start", [0.01, 30.0])
def test_c_finds_the_quantile_of_the_norms(quantile, start):
    """Lognormal norms, Poisson samples of 1,000 patients, noise on the count: C ends near the quantile."""
    rng = np.random.default_rng(5)
    norms = rng.lognormal(0.3, 0.8, 1000)
    rule = dataclasses.replace(RULE, quantile=quantile, least=1e-6, most=1e6)
    clip, tail = start, []
    for step in range(400):
        drawn = norms[rng.random(1000) < 0.25]
        noisy = (drawn <= clip).sum() - len(drawn) / 2 + rng.normal(0, rule.count_std)
        clip = rule.moved(clip, float(noisy), 250.0)
        tail.extend([clip] * (step >= 300))
    assert float((norms <= np.exp(np.mean(np.log(tail)))).mean()) == pytest.approx(quantile, abs=0.05)


def test_c_goes_up_when_too_many_are_clipped_and_down_when_too_few():
    assert RULE.moved(1.0, -5.0, 10.0) == pytest.approx(math.exp(0.1))
    assert RULE.moved(1.0, 5.0, 10.0) == pytest.approx(math.exp(-0.1))
    assert RULE.moved(1.0, 0.0, 10.0) == 1.0


@pytest.mark.parametrize("noisy", [-1e9, 1e9])
def test_c_stays_between_its_floor_and_the_hospitals_ceiling(noisy):
    assert RULE.moved(1.0, noisy, 10.0) == (RULE.most if noisy < 0 else RULE.least)


def test_no_step_and_no_round_passes_the_ceiling_of_the_policy():
    dp = DpPlan.from_plan(adaptive_plan(clip=2.0, clip_quantile=0.9, clip_learning_rate=5.0), 5, max_clip=2.5)
    learner = learner_for(private_plan(), few_patients(6))
    seen = []
    with PatientGradients(learner.module, learner.loss) as gradients:
        mechanism = Mechanism(learner, dp, gradients)
        for _ in range(30):
            mechanism.gradient(EMPTY)
            seen.append(mechanism.clip)
    assert max(seen) == 2.5, "the ceiling was reached, and held"
    assert dp.carrying(100.0).clip == 2.5
    assert dp.carrying(0.0).clip == dp.adaptive.least > 0
    assert dp.carrying(None) == dp


def test_a_round_says_where_it_left_c_and_the_next_one_begins_there():
    plan = adaptive_plan()
    dp = DpPlan.from_plan(plan, 10, max_clip=10.0)
    net = build(plan.model, 1, plan.input.shape)
    first = train(net, few_patients(10), plan, dp=dp, round=1)
    assert first.clip is not None
    assert first.clip != dp.clip
    assert dp.carrying(first.clip).clip == first.clip
    fixed = DpPlan.from_plan(adaptive_plan(clipping="flat"), 10)
    assert train(net, few_patients(10), plan, dp=fixed, round=1).clip is None
    assert fixed.carrying(0.5) is fixed


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [("clip_quantile", 0.0), ("clip_quantile", 1.0), ("count_noise", 0.5), ("count_noise", 0.0),
     ("clip_learning_rate", 0.0), ("clip_learning_rate", 50.0), ("clipping", "median")],
)  # fmt: skip
def test_nonsense_is_refused_by_the_plan(key, value):
    with pytest.raises(PlanError) as refusal:
        adaptive_plan(**{key: value})
    assert [problem.where for problem in refusal.value.problems] == [f"privacy.{key}"]


def test_a_plan_that_begins_above_the_ceiling_is_refused_before_it_begins():
    with pytest.raises(PolicyRefused) as refusal:
        policy.check(Policy(max_clip=1.0), adaptive_plan(clip=2.0))
    assert refusal.value.code == "policy-clip"
