"""From a name in the plan to a network with its first weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common import plan
from common.errors import PlanError, Problem
from common.models.cnn import CnnOptions, small_cnn
from common.models.network import Blueprint, Network, Parts
from common.models.options import as_pairs, read_options
from common.models.scatter import ScatterOptions, scatter


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
    """
    with _seeded(model.init_seed):
        parts, options = _parts(model, outputs, shape, channels)
    blueprint = Blueprint(model.name, as_pairs(options), model.trainable, outputs, shape, channels)
    return Network(parts, blueprint)


def _parts(model: plan.Model, outputs: int, shape: tuple[int, int], channels: int) -> tuple[Parts, object]:
    if model.name == "scatter":
        scattering = read_options(ScatterOptions, model.options, model.name)
        return scatter(scattering, channels, outputs, shape), scattering
    if model.name != "small-cnn":
        problem = Problem("model.name", f"{model.name} is not built yet", "Use small-cnn or scatter")
        raise PlanError("plan", [problem])
    cnn = read_options(CnnOptions, model.options, model.name)
    return small_cnn(cnn, channels, outputs), cnn


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw initial weights on the CPU from `seed`, and put the global generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
