"""One step of training under several engines: plain, ours, and Opacus in its four ways.

Each step leaves a gradient behind and touches no optimizer, so that what differs is what clipping costs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from opacus.grad_sample import (
    GradSampleModule,
    GradSampleModuleExpandedWeights,
    GradSampleModuleFastGradientClipping,
)
from pydantic import TypeAdapter
from torch import Tensor, nn

from client.privacy.ahead import NoiseAhead, noised
from client.privacy.bookkeeping.engine import BookKeeping
from client.privacy.clipping import Labelled, clip_factors
from client.privacy.noise import NoiseSource
from common.models import Network, build
from common.models.losses import Loss
from common.plan import Model

CLIP: Final = 1.0
NOISE: Final = 1.0
LOSS: Final = Loss(exclusive=False, gamma=0.0, positive_weight=1.0)
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A network and a batch."""

    network: str
    batch: int
    side: int
    """Rows and columns in pixels."""

    def make(self) -> tuple[Network, Labelled]:
        """The network, and one image each of as many patients."""
        torch.manual_seed(0)
        net = build(
            TypeAdapter(Model).validate_python({"name": self.network}), 1, (self.side, self.side)
        ).train()
        images = torch.randn(self.batch, 1, self.side, self.side)
        truth = (torch.rand(self.batch, 1) < 0.5).float()
        return net, Labelled(images, truth, torch.arange(self.batch))


def plain(net: Network, batch: Labelled) -> Step:
    """The same step without privacy."""
    learns = list(net.trainable().values())
    weights = torch.full((len(batch.inputs),), 1 / len(batch.inputs))

    def step() -> None:
        """Forward, backward."""
        _forget(learns)
        torch.autograd.backward(LOSS(net(batch.inputs), batch.targets, weights).sum())

    return step


def ours(net: Network, batch: Labelled) -> Step:
    """Book-keeping, without noise."""
    engine = BookKeeping(net, LOSS)
    room = torch.empty(engine.size)
    return lambda: engine.clipped_sum(batch, CLIP, room)


def ours_noisy(net: Network, batch: Labelled) -> Step:
    """Book-keeping, then cryptographic noise made on this very thread."""
    engine, source = BookKeeping(net, LOSS), NoiseSource()
    room = torch.empty(engine.size)

    def step() -> None:
        """Sum, noise, mean."""
        total = engine.clipped_sum(batch, CLIP, room)
        noised(total, source.chunks(engine.size, NOISE * CLIP), len(batch.inputs), total)

    return step


def ours_ahead(net: Network, batch: Labelled) -> Step:
    """The same as a hospital trains: the noise is made beside the step, on a thread that begins and ends with it."""
    engine = BookKeeping(net, LOSS)
    room = torch.empty(engine.size)

    def step() -> None:
        """Sum, noise, mean."""
        with NoiseAhead(engine.size, NOISE * CLIP, 1) as ahead:
            total = engine.clipped_sum(batch, CLIP, room)
            noised(total, ahead.take(), len(batch.inputs), total)

    return step


def hooks(net: Network, batch: Labelled) -> Step:
    """Opacus with its hooks."""
    return _materialised(GradSampleModule(net, loss_reduction="sum"), net, batch)


def functorch(net: Network, batch: Labelled) -> Step:
    """Opacus with per-sample gradients by function transforms."""
    return _materialised(GradSampleModule(net, loss_reduction="sum", force_functorch=True), net, batch)


def expanded(net: Network, batch: Labelled) -> Step:
    """Opacus over torch's expanded weights."""
    return _materialised(GradSampleModuleExpandedWeights(net, loss_reduction="sum"), net, batch)


def ghost(net: Network, batch: Labelled) -> Step:
    """Opacus with ghost clipping: norms in a first backward pass, the clipped sum in a second."""
    wrapped = GradSampleModuleFastGradientClipping(
        net, loss_reduction="sum", max_grad_norm=CLIP, use_ghost_clipping=True
    )
    learns, ones = list(net.trainable().values()), torch.ones(len(batch.inputs))

    def step() -> None:
        """Two backward passes."""
        _forget(learns)
        wrapped.enable_hooks()
        losses = LOSS(wrapped(batch.inputs), batch.targets, ones)
        torch.autograd.backward(losses.sum(), retain_graph=True)
        factors = wrapped.get_clipping_coef()
        _forget(learns)
        wrapped.disable_hooks()
        torch.autograd.backward((factors * losses).sum())

    return _hushed(step)


STEPS: Final[dict[str, Callable[[Network, Labelled], Step]]] = {
    "plain": plain,
    "book-keeping": ours,
    "book-keeping, noise": ours_noisy,
    "book-keeping, noise beside": ours_ahead,
    "opacus hooks": hooks,
    "opacus expanded weights": expanded,
    "opacus functorch": functorch,
    "opacus ghost": ghost,
}


def prepared(case: Case, name: str) -> Step:
    """The step of one engine on a network of its own."""
    net, batch = case.make()
    return STEPS[name](copy.deepcopy(net), batch)


def _materialised(wrapped: nn.Module, net: Network, batch: Labelled) -> Step:
    learns, ones = list(net.trainable().values()), torch.ones(len(batch.inputs))

    def step() -> None:
        """Per-sample gradients, their norms, the weighted sum."""
        _forget(learns)
        torch.autograd.backward(LOSS(wrapped(batch.inputs), batch.targets, ones).sum())
        each: list[Tensor] = [p.grad_sample.flatten(1) for p in learns]  # type: ignore[attr-defined]
        norms = torch.stack([g.norm(dim=1) for g in each], dim=1).norm(dim=1)
        factors = clip_factors(norms, CLIP)
        for parameter, samples in zip(learns, each, strict=True):
            parameter.grad = (factors @ samples).reshape(parameter.shape)

    return _hushed(step)


def _forget(learns: list[nn.Parameter]) -> None:
    for parameter in learns:
        parameter.grad = None
        parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus puts it there


def _hushed(step: Step) -> Step:
    def quiet() -> None:
        """The step, without torch's remark on hooks of a layer whose input needs no gradient."""
        with _no_warnings():
            step()

    return quiet


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
