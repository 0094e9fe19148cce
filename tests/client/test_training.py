"""Does a round train what it says, the same way twice, and only where it may?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from client.device import PhysicalBatch, choose_device, mixed_precision
from client.evaluation import log_loss, predict
from client.features import FeatureCache, cache
from client.finetune import finetune, harmed
from client.learner import Learner, training_mode
from client.privacy.plan import DpPlan
from client.training import Descent, Recipe, train
from common.errors import DataError, FederationError, PrivacyRefused, StorageError
from common.models import build, get_arrays, set_arrays
from tests.client.few_patients import few_patients, small_plan

SCATTER = {"name": "scatter", "options": {"scales": 2, "grid": 4}}
AUGMENT = {"augmentation": {"rotation_deg": 10.0, "noise_std": 0.1, "elastic_px": 1.0}}
PRIVATE = {"mode": "patient-dp", "epsilon": 50.0, "sampling_rate": 0.5, "steps_per_round": 6}


def new(plan):
    return build(plan.model, plan.task.outputs, plan.input.shape)


def trained(plan, data, number=1, dp=None):
    net = new(plan)
    return train(net, data, plan, dp=dp, round=number), net


def same(one, other) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


# ---- without privacy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sections", [{}, {"model": SCATTER}, {"training": AUGMENT}])
def test_the_same_seed_and_round_give_the_same_bits(sections):
    plan, data = small_plan(**sections), few_patients(10)
    one, two = trained(plan, data)[0], trained(plan, data)[0]
    assert same(one.delta, two.delta)
    assert one.steps == 3
    assert not same(one.delta, trained(plan, data, number=2)[0].delta)
    other = small_plan(**{**sections, "training": {**sections.get("training", {}), "seed": 1}})
    assert not same(one.delta, trained(other, data)[0].delta)


def test_the_global_random_state_is_left_as_it_was():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trained(small_plan(training=AUGMENT), few_patients(4))
    assert torch.equal(torch.rand(3), wanted)


def test_the_delta_is_what_changed_and_only_the_trainable_part_did():
    plan = small_plan(model={"name": "small-cnn", "options": {"width": 4, "groups": 2}, "trainable": "head"})
    net = new(plan)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    result = train(net, few_patients(6), plan, dp=None, round=1)
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == set(result.delta) == set(net.trainable())
    for name, delta in result.delta.items():
        assert delta.dtype == np.float32
        assert np.array_equal(delta, (net.state_dict()[name] - before[name]).numpy())


def test_one_full_step_is_the_patient_averaged_gradient():
    """A patient with four images weighs as much as one with one."""
    plan = small_plan(training={"batch_patients": 100, "momentum": 0.0, "learning_rate": 0.5})
    data, net = few_patients(8), new(plan)
    logits = net(data.tensor(np.arange(data.n_images)))
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(data.labels), reduction="none"
    )[:, 0]
    means = [losses[data.patient_of == p].mean() for p in range(8)]
    wanted = torch.autograd.grad(torch.stack(means).mean(), list(net.trainable().values()))
    result = train(net, data, plan, dp=None, round=1)
    for delta, gradient in zip(result.delta.values(), wanted, strict=True):
        assert np.allclose(delta, -0.5 * gradient.numpy(), atol=1e-6)


def test_cached_features_train_the_same_head_as_whole_images_do():
    data, plan = few_patients(10), small_plan(model=SCATTER)
    fast, _ = trained(plan, data)
    net = new(plan)
    whole = Learner.of(net, data, plan, torch.device("cpu"))
    learner = dataclasses.replace(whole, maps=None, module=net)
    batch = learner.roster.batch(np.arange(10), lambda i: i)
    learner.gradient(batch)
    slow = [p.grad.clone() for p in learner.parameters]
    whole.gradient(batch)
    for one, two in zip(slow, (p.grad for p in whole.parameters), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert fast.steps == 3


def test_the_model_learns_what_is_there_to_learn():
    plan = small_plan(32, training={"learning_rate": 0.05, "batch_patients": 4})
    net, data = new(plan), few_patients(40, 32)
    before = log_loss(predict(net, data))
    for number in (1, 2, 3, 4):
        train(net, data, plan, dp=None, round=number)
    assert log_loss(predict(net, data)) < before


def test_at_most_k_images_of_a_patient_are_looked_at():
    data = few_patients(5, most=9, seed=3)
    counts = np.bincount(data.patient_of)
    result, _ = trained(small_plan(training={"images_per_patient": 2}), data)
    assert result.images_seen == np.minimum(counts, 2).sum()


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.01), (0.9, 0.01)])
def test_gradient_descent_is_that_of_torch_to_the_bit(momentum, decay):
    draw = torch.Generator().manual_seed(5)
    ours = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((7, 3), (5,))]
    theirs = [nn.Parameter(one.detach().clone()) for one in ours]
    descent = Descent(ours, Recipe("sgd", 0.07, momentum, decay, 0.0, 1, 1))
    known = torch.optim.SGD(theirs, 0.07, momentum, weight_decay=decay)
    for _ in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=draw)
            other.grad = one.grad.clone()
        descent.step()
        known.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_proximal_term_pulls_towards_the_incoming_weights():
    sections = {"training": {"local_epochs": 5}}
    free, _ = trained(small_plan(**sections), few_patients(10))
    held, _ = trained(
        small_plan(**sections, federation={"strategy": "fedprox", "proximal_mu": 5.0}), few_patients(10)
    )
    norm = [np.sqrt(sum((d**2).sum() for d in r.delta.values())) for r in (free, held)]
    assert norm[1] < 0.7 * norm[0]


def test_the_proximal_gradient_is_mu_times_the_distance():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    recipe = dataclasses.replace(Recipe.of(small_plan()), learning_rate=1.0, momentum=0.0, proximal_mu=0.5)
    descent = Descent([parameter], recipe)
    with torch.no_grad():
        parameter += 4.0
    parameter.grad = torch.zeros(2)
    descent.step()
    assert parameter.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_optimizers_train(optimizer):
    result, _ = trained(small_plan(training={"optimizer": optimizer, "weight_decay": 0.01}), few_patients(6))
    assert any(np.abs(d).max() > 0 for d in result.delta.values())


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_every_kind_of_label_trains_and_predicts(kind):
    data = few_patients(9)
    classes = np.arange(9)[data.patient_of] % 3
    labels = classes if kind == "multiclass" else np.eye(3, dtype=np.float32)[classes]
    data = dataclasses.replace(data, labels=labels)
    plan = small_plan(task={"kind": kind, "classes": ["a", "b", "c"]})
    for dp in (None, DpPlan.from_plan(small_plan(privacy=PRIVATE), 9)):
        net = new(plan)
        train(net, data, plan, dp=dp, round=1)
        scores = predict(net, data).scores
        assert scores.shape == (data.n_images, 3)
        assert np.allclose(scores.sum(axis=1), 1) == (kind == "multiclass")


def test_a_site_without_patients_is_told_so():
    data = few_patients(4).subset([])
    with pytest.raises(DataError) as refusal:
        trained(small_plan(), data)
    assert refusal.value.code == "no-patients"


def test_training_that_diverges_is_named_and_not_sent():
    with pytest.raises(FederationError) as refusal:
        trained(small_plan(training={"learning_rate": 1e30, "local_epochs": 4}), few_patients(8))
    assert refusal.value.code == "training-diverged"


# ---- with privacy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sections", [{}, {"model": SCATTER}, {"training": AUGMENT}])
def test_a_private_round_takes_its_fixed_steps_and_never_repeats(sections):
    plan = small_plan(privacy=PRIVATE, **sections)
    dp = DpPlan.from_plan(plan, 10)
    one, two = (trained(plan, few_patients(10), dp=dp)[0] for _ in range(2))
    assert one.steps == 6
    assert not same(one.delta, two.delta)


def test_the_update_of_a_private_round_carries_the_noise_it_owes():
    """With no signal (clip far below any gradient's share) the update is lr * sigma * C / divisor per step."""
    model = {"name": "scatter", "options": {"scales": 2, "grid": 4, "hidden": 256}}
    plan = small_plan(
        model=model,
        privacy={**PRIVATE, "epsilon": 1.0, "clip": 1e-4, "steps_per_round": 4},
        training={"momentum": 0.0, "learning_rate": 0.1},
    )
    dp = DpPlan.from_plan(plan, 10)
    deltas = [trained(plan, few_patients(10), dp=dp)[0].delta for _ in range(2)]
    noise = np.concatenate([d.reshape(-1) for delta in deltas for d in delta.values()])
    wanted = 0.1 * np.sqrt(4) * dp.noise_std / dp.expected_batch
    assert len(noise) > 1e5
    assert abs(noise.std() / wanted - 1) < 0.012


def test_private_training_learns_where_noise_is_small():
    plan = small_plan(
        32, model=SCATTER, privacy={**PRIVATE, "steps_per_round": 20}, training={"learning_rate": 0.5}
    )
    net, data = new(plan), few_patients(60, 32)
    before = log_loss(predict(net, data))
    train(net, data, plan, dp=DpPlan.from_plan(plan, 50), round=1)
    assert log_loss(predict(net, data)) < before


class WithBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(256, 1)


def test_batch_norm_that_learns_is_refused_and_a_frozen_one_is_put_to_sleep():
    net = WithBatchNorm()
    with pytest.raises(PrivacyRefused) as refusal:
        training_mode(net)
    assert refusal.value.code == "dp-batch-norm"
    net.norm.requires_grad_(False)
    training_mode(net)
    assert net.head.training
    assert not net.norm.training
    statistics = {name: b.clone() for name, b in net.named_buffers()}
    net.norm(torch.randn(4, 1, 16, 16))
    assert all(torch.equal(b, statistics[name]) for name, b in net.named_buffers())


def test_a_network_with_a_problem_is_refused_by_its_name():
    plan = small_plan(privacy=PRIVATE)
    net = new(plan)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    with pytest.raises(PrivacyRefused) as refusal:
        train(net, few_patients(6), plan, dp=DpPlan.from_plan(plan, 6), round=1)
    assert refusal.value.code == "dp-in-place"
    assert "body" in refusal.value.rule


# ---- device --------------------------------------------------------------------------------------------


class SmallDevice:
    """A device that holds so many images and no more."""

    def __init__(self, holds: int):
        self.holds = holds
        self.asked = []

    def step(self, images: int) -> int:
        self.asked.append(images)
        if images > self.holds:
            raise torch.OutOfMemoryError("made up")
        return images


def test_a_full_device_halves_the_batch_and_runs_the_step_again():
    device, batch = SmallDevice(10), PhysicalBatch(64)
    assert batch.attempt(device.step) == 8
    assert device.asked == [64, 32, 16, 8]
    assert batch.attempt(device.step) == 8, "what was learnt about the device is kept"
    assert device.asked[4:] == [8]


def test_a_device_too_small_for_one_image_is_named():
    with pytest.raises(StorageError) as refusal:
        PhysicalBatch(4).attempt(SmallDevice(0).step)
    assert refusal.value.code == "device-memory"


class Cramped(nn.Module):
    """A network's forward on a device with room for two images."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("made up")
        return self.net(x)


def test_the_gradient_is_the_same_after_memory_ran_out_half_way():
    plan, data = small_plan(), few_patients(8, most=2)
    roomy = Learner.of(new(plan), data, plan, torch.device("cpu"))
    net = new(plan)
    cramped = dataclasses.replace(roomy, net=net, module=Cramped(net), physical=PhysicalBatch(64))
    batch = roomy.roster.batch(np.arange(8), lambda i: i)
    for learner in (roomy, cramped):
        learner.gradient(batch)
    assert cramped.physical.images == 2
    for one, two in zip(roomy.parameters, cramped.parameters, strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-6)


def test_the_device_asked_for_is_used_and_the_cpu_stays_in_full_precision():
    assert choose_device("cpu").type == "cpu"
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for private in (True, False):
        with mixed_precision(torch.device("cpu"), private=private):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


# ---- cached features -----------------------------------------------------------------------------------


def test_maps_are_found_by_content_and_never_stale(tmp_path):
    plan, data = small_plan(model=SCATTER), few_patients(5)
    net, own = new(plan), FeatureCache()
    own.keep_in(tmp_path)
    cpu = torch.device("cpu")
    maps = own.maps(net, data, cpu)
    assert torch.equal(maps, net.features(data.tensor(np.arange(data.n_images))))
    copied = dataclasses.replace(data, images=data.images.copy())
    assert own.maps(net, copied, cpu) is maps
    other = dataclasses.replace(data, images=data.images + 1)
    assert own.maps(net, other, cpu) is not maps
    finer = new(small_plan(model={"name": "scatter", "options": {"scales": 1, "grid": 4}}))
    assert own.maps(finer, data, cpu).shape != maps.shape


def test_maps_on_disk_serve_another_process_and_are_forgotten_on_request(tmp_path):
    plan, data = small_plan(model=SCATTER), few_patients(5)
    first, second = FeatureCache(), FeatureCache()
    for one in (first, second):
        one.keep_in(tmp_path)
    maps = first.maps(new(plan), data, torch.device("cpu"))
    assert len(list(tmp_path.iterdir())) == 1
    assert torch.equal(second.maps(new(plan), data, torch.device("cpu")), maps)
    first.forget()
    assert not list(tmp_path.iterdir())


def test_the_memory_of_the_cache_is_bounded():
    plan, own = small_plan(model=SCATTER), FeatureCache(memory_bytes=1)
    for seed in range(3):
        own.maps(new(plan), few_patients(3, seed=seed), torch.device("cpu"))
    assert len(own._maps) == 1


def test_augmentation_is_not_cached_away():
    cache.forget()
    trained(small_plan(model=SCATTER, training=AUGMENT), few_patients(4))
    assert not cache._maps


# ---- personalisation -----------------------------------------------------------------------------------


def personal(epochs=4, learning_rate=0.05, mu=0.0):
    own = {"method": "finetune", "epochs": epochs, "learning_rate": learning_rate, "proximal_mu": mu}
    return small_plan(32, personalisation=own)


def test_fine_tuning_helps_on_validation_and_is_deterministic():
    plan, results = personal(), []
    for _ in range(2):
        net = new(plan)
        found = finetune(net, few_patients(40, 32), few_patients(20, 32, seed=2), plan)
        results.append((found, get_arrays(net)))
    (found, arrays), (again, other) = results
    assert found == again
    assert same(arrays, other)
    assert found.kept
    assert len(found.losses) == 5
    assert found.losses[-1] < found.losses[0]


def test_first_do_no_harm():
    """Trained on patients whose labels are wrong, the global model stays, bit by bit."""
    plan = personal(epochs=3)
    net, good = new(plan), few_patients(40, 32)
    for number in range(1, 5):
        train(net, good, plan, dp=None, round=number)
    before = get_arrays(net)
    liars = dataclasses.replace(good, labels=1 - good.labels)
    found = finetune(net, liars, few_patients(30, 32, seed=2), plan)
    assert not found.kept
    assert same(get_arrays(net), before)


def test_without_validation_patients_the_global_model_stays():
    plan, data = personal(), few_patients(6, 32)
    net = new(plan)
    before = get_arrays(net)
    assert not finetune(net, data, data.subset([]), plan).kept
    assert same(get_arrays(net), before)


def test_harm_is_judged_beyond_chance_and_one_class_by_its_loss():
    scores = predict(new(personal()), few_patients(40, 32))
    truth = scores.labels.astype(np.float64)
    right = dataclasses.replace(scores, scores=0.1 + 0.8 * truth)
    wrong = dataclasses.replace(scores, scores=0.9 - 0.8 * truth)
    slightly = dataclasses.replace(scores, scores=right.scores + 1e-3 * np.arange(len(truth))[:, None])
    assert harmed(wrong, right, 0.95)
    assert not harmed(right, wrong, 0.95)
    assert not harmed(slightly, right, 0.95)
    assert harmed(dataclasses.replace(scores, scores=scores.scores * np.nan), right, 0.95)
    ones = np.ones(len(truth), dtype=bool) & (truth[:, 0] > 0)
    assert harmed(wrong.take(ones), right.take(ones), 0.95)
    assert not harmed(right.take(ones), wrong.take(ones), 0.95)


def test_the_pull_keeps_a_personal_model_near_the_global_one():
    distances = []
    for mu in (0.0, 10.0):
        plan = personal(mu=mu)
        net = new(plan)
        start = get_arrays(net)
        finetune(net, few_patients(40, 32), few_patients(20, 32, seed=2), plan)
        distances.append(sum(((v - start[k]) ** 2).sum() for k, v in get_arrays(net).items()))
        set_arrays(net, start)
    assert distances[1] < distances[0]
