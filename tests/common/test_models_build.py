"""Networks by name: options, arrays, digests, and the reasons to refuse private training."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from common import models
from common.errors import InputError, PlanError, WrongOrder
from common.models import architecture_digest, build, dp_problems, get_arrays, set_arrays
from common.models.convert import child, groups_for, per_image
from common.plan import Model


def scatter(**options):
    return build(Model("scatter", options=options), 1, (64, 64))


def test_small_cnn_is_small():
    """At most 60,000 parameters, as a hospital without a GPU was promised."""
    net = build(Model("small-cnn"), 1, (64, 64))
    assert sum(p.numel() for p in net.parameters()) <= 60_000


def test_the_maximum_before_the_relu_changes_no_bit_of_values_and_gradients():
    """Whoever knows the network with the ReLU first gets the same model."""
    values, found = torch.randn(6, 8, 10, 10, generator=torch.Generator().manual_seed(3)), []
    for steps in (nn.MaxPool2d(2), nn.ReLU()), (nn.ReLU(), nn.MaxPool2d(2)):
        given = values.clone().requires_grad_()
        out = nn.Sequential(*steps)(given)
        out.square().sum().backward()
        found.append((out.detach().numpy().tobytes(), given.grad.numpy().tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("densenet121", 7e6),
        ("resnet18", 11.2e6),
        ("resnet50", 23.5e6),
        ("efficientnet-b0", 4e6),
        ("vit", 5.4e6),
    ],
)
def test_the_known_networks_have_their_known_sizes(name, parameters):
    """A network called DenseNet121 is DenseNet121 (published sizes, less the ImageNet head)."""
    net = build(Model(name), 1, (64, 64))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize(
    ("name", "options", "places"),
    [
        ("scatter", {"scale": 3}, ["model.options.scale"]),
        ("scatter", {"scales": 0}, ["model.options.scales"]),
        ("scatter", {"scales": 2.5}, ["model.options.scales"]),
        ("scatter", {"scales": True}, ["model.options.scales"]),
        ("scatter", {"norm": "batch", "order": 3}, ["model.options.norm", "model.options.order"]),
        ("scatter", {"scales": 6, "grid": 8}, ["model.options.grid"]),
        ("small-cnn", {"width": 16, "groups": 3}, ["model.options.groups"]),
        ("vit", {"patch": 7, "hidden": 50, "heads": 3}, ["model.options.patch", "model.options.hidden"]),
        ("efficientnet-b0", {"width": 2.0}, ["model.options.width"]),
    ],
)
def test_every_wrong_option_is_named_at_once(name, options, places):
    with pytest.raises(PlanError) as caught:
        build(Model(name, options=options), 1, (64, 64))
    assert [p.where for p in caught.value.problems] == places


def test_a_whole_number_serves_where_a_fraction_is_meant():
    assert dict(scatter(radius=5).blueprint.options)["radius"] == 5.0


@pytest.mark.parametrize(("name", "side"), [("resnet18", 16), ("small-cnn", 8), ("densenet121", 31)])
def test_an_image_too_small_for_the_network_is_refused(name, side):
    with pytest.raises(PlanError, match="pixels or more"):
        build(Model(name), 1, (side, 64))


def test_the_digest_tells_networks_apart_that_cannot_share_weights():
    """Same digest, same tensors and options; any difference shows."""
    nets = [scatter(), scatter(grid=8), scatter(radius=5.0), build(Model("scatter"), 2, (64, 64))]
    nets.append(build(Model("small-cnn", trainable="head"), 1, (64, 64)))
    nets.append(build(Model("small-cnn"), 1, (64, 64)))
    assert len({architecture_digest(net) for net in nets}) == len(nets)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.pop("head.1.bias"),
        lambda a: a.update({"body.bank": np.zeros(3, np.float32)}),
        lambda a: a.update({"head.1.bias": np.zeros(2, np.float32)}),
        lambda a: a.update({"head.1.bias": np.zeros(1, np.float64)}),
        lambda a: a.update({"head.1.bias": np.array([np.nan], np.float32)}),
    ],
    ids=["missing", "unknown", "shape", "dtype", "nan"],
)
def test_arrays_that_do_not_fit_change_nothing(spoil):
    """A half-filled model is worse than a refusal."""
    net = scatter()
    arrays = {k: a + 1 for k, a in get_arrays(net).items()}
    spoil(arrays)
    with pytest.raises(InputError) as caught:
        set_arrays(net, arrays)
    assert caught.value.code == "arrays"
    assert all(not a.any() for a in get_arrays(net).values())


def test_arrays_are_copies():
    """Training after sending must not change what was sent."""
    net = scatter()
    arrays = get_arrays(net)
    arrays["head.1.bias"][0] = 7
    assert get_arrays(net)["head.1.bias"][0] == 0


def _with(layer: nn.Module, trainable: str = "all"):
    net = build(Model("small-cnn", trainable=trainable), 1, (32, 32))
    net.body[0].append(layer)
    return net


def test_a_frozen_batch_norm_in_train_mode_is_found():
    """Opacus raises no error there, and every running statistic would hold patient data."""
    net = _with(nn.BatchNorm2d(16), "head")
    for parameter in net.body.parameters():
        parameter.requires_grad_(requires_grad=False)
    assert [p.split(":")[0] for p in dp_problems(net.train())] == ["batch-norm"]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.ReLU(inplace=True), "in-place"),
        (nn.InstanceNorm2d(16, track_running_stats=True), "running-statistics"),
        (nn.SyncBatchNorm(16), "batch-norm"),
    ],
)
def test_layers_that_break_privacy_are_named(layer, reason):
    assert any(p.startswith(reason) for p in dp_problems(_with(layer).train()))


class _Keeps(nn.Module):
    """A layer of somebody's own that keeps a running mean of what it sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_level", torch.zeros(1))

    def forward(self, x):
        return x


class _Blends(nn.Module):
    """Mixes each image with its neighbour: MixUp, as a layer without parameter or telling name."""

    def forward(self, x):
        return 0.7 * x + 0.3 * x.roll(1, dims=0)


class StochasticDepth(nn.Module):
    """By its name, whatever it does."""

    def forward(self, x):
        return x


class _Skipped(nn.Module):
    """By its rate."""

    drop_connect_rate = 0.2

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (_Keeps, "running-statistics"),
        (_Blends, "mixes-patients"),
        (StochasticDepth, "stochastic-depth"),
        (_Skipped, "stochastic-depth"),
        (nn.LazyBatchNorm2d, "batch-norm"),
    ],
)
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_what_binds_patients_together_is_refused_by_name(layer, reason, trainable):
    """Also where it is frozen: a frozen layer mixes and remembers just as well."""
    problems = dp_problems(_with(layer(), trainable).train())
    assert [p.split(":")[0] for p in problems] == [reason]


def test_looking_for_mixing_leaves_the_global_chance_as_it_was():
    before = torch.random.get_rng_state()
    dp_problems(build(Model("small-cnn"), 1, (32, 32)).train())
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_unsupported_layer_is_named():
    """What Opacus has no rule for is refused before training, not found out during it."""
    problems = dp_problems(_with(nn.LSTM(4, 4)).train())
    assert [p.split(":")[0] for p in problems] == ["unsupported"]


def test_a_shared_parameter_and_a_frozen_network_are_named():
    net = _with(nn.Conv2d(16, 16, 1))
    net.body[0][-1].bias = net.body[0][1].bias
    assert any(p.startswith("shared") for p in dp_problems(net))
    for parameter in net.parameters():
        parameter.requires_grad_(requires_grad=False)
    assert any(p.startswith("nothing-to-train") for p in dp_problems(net))


def test_conversion_leaves_no_batch_norm_and_no_in_place_layer():
    net = per_image(
        nn.Sequential(nn.Sequential(nn.Conv2d(1, 24, 3), nn.BatchNorm2d(24)), nn.ReLU6(inplace=True))
    )
    assert isinstance(net[0][1], nn.GroupNorm)
    assert net[1].inplace is False
    assert [groups_for(c) for c in (3, 16, 24, 64, 112, 1280)] == [1, 4, 6, 16, 28, 32]
    with pytest.raises(WrongOrder):
        child(net, "layer9")


def test_metrics_come_without_torch():
    """The report and the courier import the metrics; they must not pay for torch, nor be able to train."""
    code = "import sys, common.models.metrics, common.models.fairness; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_an_unknown_door_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute"):
        _ = models.nothing


def test_scattering_sees_no_brightness_and_no_gain():
    """Log averages, normalised: a scanner with another gain and offset gives nearly the same map."""
    net = scatter()
    x = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)).cumsum(2).cumsum(3) / 50
    same, changed = net.features(x), net.features(3 * x + 10)
    assert (same - changed).norm() / same.norm() < 0.02


def test_scattering_tells_orientations_apart():
    """Stripes down and stripes across excite channels that are a quarter turn apart."""
    net = scatter(norm="none", compress="none", scales=1)
    wave = torch.sin(torch.arange(64) * 2.3)
    across, down = wave.expand(1, 1, 64, 64), wave[:, None].expand(1, 1, 64, 64)
    best = [int(net.features(x)[0, 1:].mean(dim=(1, 2)).argmax()) for x in (across, down)]
    assert best == [0, 4]


def test_scattering_moves_little_when_the_image_does():
    """A shift by two pixels changes the map far less than another image would."""
    net = scatter()
    x = torch.randn(1, 1, 64, 68, generator=torch.Generator().manual_seed(1)).cumsum(3)
    still, moved = net.features(x[..., :64]), net.features(x[..., 2:66])
    other = net.features(torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2)).cumsum(3))
    assert (still - moved).norm() < 0.5 * (still - other).norm()


@pytest.mark.parametrize("norm", ["order", "scale", "all"])
@pytest.mark.parametrize("order", [1, 2])
def test_scattering_maps_have_the_length_asked_for(norm, order):
    """The learning rate that is stable depends on it, and a clip of 1 is read against it."""
    net = scatter(norm=norm, order=order, radius=4.0)
    features = net.features(torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(3)))
    assert features.shape[1] == 1 + 4 * 8 + (6 * 64 if order == 2 else 0)
    assert features.flatten(1).norm(dim=1).allclose(torch.tensor(4.0), rtol=1e-2)


def test_scattering_is_the_same_to_the_bit_in_any_batch():
    """Features computed once and kept must be those computed on the way, or two runs would differ."""
    net = scatter(order=2)
    x = torch.randn(6, 1, 64, 64, generator=torch.Generator().manual_seed(4))
    assert torch.equal(net.features(x), torch.cat([net.features(image) for image in x.split(1)]))


def test_a_transformers_positions_are_fixed():
    """They are known beforehand; learning them would only give the noise more to spoil."""
    net = build(Model("vit"), 1, (64, 96))
    assert net.features(torch.zeros(1, 1, 64, 96)).shape == (1, 192, 8, 12)
    assert not any("position" in name for name in get_arrays(net))


def test_a_constant_image_gives_finite_features():
    """A blank image must not become a number that is none."""
    for compress in ("log", "sqrt", "none"):
        assert torch.isfinite(scatter(compress=compress).features(torch.zeros(1, 1, 64, 64))).all()
