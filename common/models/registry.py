"""From a name in the plan to a network with its first weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common import plan
from common.errors import PlanError, Problem
from common.models.adapters import adapt
from common.models.cnn import CnnOptions, small_cnn
from common.models.linear import LinearOptions, linear
from common.models.network import Blueprint, Network, Parts
from common.models.options import as_pairs, read_options
from common.models.scatter import ScatterOptions, scatter

_TAKE_WEIGHTS = ("efficientnet-lite0", "resnet18", "resnet50")
"""Networks whose batch normalisation stands after a convolution, into which it can be folded."""
_LEAST_PIXELS = 32
"""Below this the deep networks, which halve the image five times, have no map left."""

Built = tuple[Parts, object]


def build(model: plan.Model, outputs: int, shape: tuple[int, int], channels: int = 1) -> Network:
    """The network the plan names, with its first weights and only its trainable part unfrozen.

    The weights depend on `model.init_seed` alone; the global random state is left as it was.

    Args:
        model: name, trainable part, initial seed and options.
        outputs: logits per image.
        shape: rows and columns of the input in pixels.
        channels: input channels.

    Raises:
        PlanError: for an option the network does not know or that does not fit the input.
        InputError: code `weights`: those that the plan names are not here.
    """
    ends = (channels, outputs)
    _check_weights(model)
    with _seeded(model.init_seed):
        if model.name in ("small-cnn", "linear", "scatter", "vit"):
            parts, options = _light(model, ends, shape)
        else:
            parts, options = _deep(model, ends, shape)
        named = as_pairs(options)
        if model.trainable == "adapters":
            # Drawn after the network's own weights, so that those are the same whatever part may learn.
            adapt(parts.body, model.adapter_rank, model.name)
            named = (*named, ("adapter-rank", model.adapter_rank))
        if model.weights:
            named = (*named, ("weights", model.weights))
    return Network(parts, Blueprint(model.name, named, model.trainable, outputs, shape, channels))


def _check_weights(model: plan.Model) -> None:
    known = _TAKE_WEIGHTS[:1] if model.weights == "imagenet" else _TAKE_WEIGHTS
    if model.weights and model.name not in known:
        rule = f"{model.name} takes no such weights from elsewhere"
        raise PlanError(
            "plan", [Problem("model.weights", rule, f"Leave it out, or use {' or '.join(known)}")]
        )


def _light(model: plan.Model, ends: tuple[int, int], shape: tuple[int, int]) -> Built:
    if model.name == "small-cnn":
        cnn = read_options(CnnOptions, model.options, model.name)
        return small_cnn(cnn, *ends, shape), cnn
    if model.name == "linear":
        plain = read_options(LinearOptions, model.options, model.name)
        return linear(plain, *ends, shape), plain
    if model.name == "scatter":
        scattering = read_options(ScatterOptions, model.options, model.name)
        return scatter(scattering, *ends, shape), scattering
    from common.models.vit import VitOptions, vit  # noqa: PLC0415  # MONAI loads slowly

    transformer = read_options(VitOptions, model.options, model.name)
    return vit(transformer, *ends, shape), transformer


def _deep(model: plan.Model, ends: tuple[int, int], shape: tuple[int, int]) -> Built:
    """The convolutional networks of MONAI, loaded only when one is asked for."""
    if min(shape) < _LEAST_PIXELS:
        rule = f"{model.name} needs {_LEAST_PIXELS} by {_LEAST_PIXELS} pixels or more"
        raise PlanError("plan", [Problem("input.shape", rule, "Enlarge the input or use small-cnn")])
    if model.name == "densenet121":
        from common.models.densenet import DenseNetOptions, densenet121  # noqa: PLC0415  # as above

        dense = read_options(DenseNetOptions, model.options, model.name)
        return densenet121(dense, *ends), dense
    if model.name == "efficientnet-b0":
        from common.models.efficientnet import EfficientNetOptions, efficientnet_b0  # noqa: PLC0415

        efficient = read_options(EfficientNetOptions, model.options, model.name)
        return efficientnet_b0(efficient, *ends), efficient
    if model.name == "efficientnet-lite0":
        from common.models.lite import LiteOptions, efficientnet_lite0  # noqa: PLC0415

        lite = read_options(LiteOptions, model.options, model.name)
        return efficientnet_lite0(lite, ends, shape, model.weights), lite
    from common.models.resnet import ResNetOptions, resnet18, resnet50  # noqa: PLC0415

    residual = read_options(ResNetOptions, model.options, model.name)
    builder = resnet18 if model.name == "resnet18" else resnet50
    return builder(residual, *ends, model.weights), residual


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw initial weights on the CPU from `seed`, and put the global generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
