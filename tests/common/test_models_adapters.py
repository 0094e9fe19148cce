"""Adapters: the network begins as it was, little is added, and only that and the head change and travel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.privacy.bookkeeping.engine import BookKeeping
from common.errors import PlanError
from common.models import architecture_digest, build, get_arrays, set_arrays
from common.models.adapters import Adapted
from common.plan import Model
from tests.contracts.test_networks import LOSS, NOTHING_TO_ADAPT, PIXELS, SMALL, TRUTH, images, small

ADAPTABLE = [name for name in SMALL if name not in NOTHING_TO_ADAPT]


def ranked(rank: int, name: str = "small-cnn"):
    model = Model(name, trainable="adapters", adapter_rank=rank)
    return build(model, 2, (PIXELS, PIXELS))


@pytest.mark.parametrize("name", ADAPTABLE)
def test_a_network_with_adapters_begins_as_the_network_it_was(name):
    """To the bit, from the same seed: the path's second half is zero and the rest is drawn first."""
    x = images()
    assert torch.equal(small(name, "adapters")(x), small(name, "all")(x))


@pytest.mark.parametrize("name", ADAPTABLE)
def test_only_paths_and_head_learn_in_layers_whose_gradients_are_known(name):
    """So that per-patient gradients come by book-keeping, and few numbers meet the noise."""
    net, whole = small(name, "adapters"), small(name, "all")
    learning = net.trainable()
    assert all(key.startswith("head.") or ".down." in key or ".up." in key for key in learning)
    assert BookKeeping.fits(net)
    few, many = (sum(p.numel() for p in n.trainable().values()) for n in (net, whole))
    assert few < many / 3


@pytest.mark.parametrize("name", ADAPTABLE)
def test_training_changes_the_paths_and_the_head_and_nothing_else(name):
    net = small(name, "adapters").double().train()  # in float32 the first steps of a deep path are too small
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # the first half learns once the second is no longer zero
        optimizer.zero_grad()
        LOSS(net(images().double()), TRUTH.double()).sum().backward()
        optimizer.step()
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    learns = net.trainable()
    assert changed <= set(learns) == set(get_arrays(net))
    assert len(changed) > 0.9 * len(learns)
    # In an untrained deep network a step may be smaller than a weight can show: each has a gradient all the same.
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in learns.values())


def test_what_was_learned_travels_to_another_hospital():
    one, two = ranked(3), ranked(3)
    with torch.no_grad():
        for parameter in one.trainable().values():
            parameter.add_(0.1)
    set_arrays(two, get_arrays(one))
    assert torch.equal(one(images()), two(images()))


def test_the_digest_knows_the_rank_and_that_there_are_adapters():
    digests = {architecture_digest(net) for net in (ranked(2), ranked(4), small("small-cnn", "head"))}
    assert len(digests) == 3


def test_a_path_is_never_wider_than_its_layer():
    """A rank above a layer's channels would only be noise's."""
    net = ranked(64)
    assert all(
        m.down.weight.shape[0] <= min(m.layer.weight[0].numel(), m.layer.weight.shape[0])
        for m in net.modules()
        if isinstance(m, Adapted)
    )


def test_an_adapter_is_what_hu_et_al_wrote_down():
    """For a Linear: W x + B A x."""
    torch.manual_seed(0)
    side = Adapted(torch.nn.Linear(5, 4), 2)
    torch.nn.init.normal_(side.up.weight)
    x = torch.randn(3, 5)
    merged = side.layer.weight + side.up.weight @ side.down.weight
    assert torch.allclose(side(x), x @ merged.T + side.layer.bias, atol=1e-6)


@pytest.mark.parametrize("name", NOTHING_TO_ADAPT)
def test_a_network_with_nothing_to_adapt_is_refused(name):
    with pytest.raises(PlanError, match="adapter"):
        build(Model(name, trainable="adapters"), 1, (64, 64))


def test_adapters_that_travel_hold_no_frozen_weight():
    """The frozen weights are the same everywhere by seed or digest; sending them would only cost."""
    arrays = get_arrays(small("resnet18", "adapters"))
    frozen = {key for key in small("resnet18", "adapters").state_dict() if ".layer.weight" in key}
    assert frozen
    assert not frozen & arrays.keys()
    assert all(array.dtype == np.float32 for array in arrays.values())
