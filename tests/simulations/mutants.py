"""Broken parts, each of which a privacy audit must find: what would go wrong if nobody looked."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.dataset import load_dataset
from client.duties import ImagingDuties
from client.privacy.engine import Clipped, Gradients, PatientGradients
from client.privacy.noise import Float64, NoiseSource
from client.privacy.parts import Parts
from client.privacy.plan import DpPlan
from client.service import SiteService
from client.site import Site
from client.training import train
from common.code import code_digest
from common.messages import Instruction, Progress, Update
from common.models import Network, build, set_arrays
from common.models.network import Blueprint
from common.models.network import Parts as Halves
from common.plan import Plan


class HalfNoise(NoiseSource):
    """Noise half as large as asked for."""

    def fill(self, out: Float64, std: float) -> Float64:
        return super().fill(out, std / 2)


class TwiceDrawn(NoiseSource):
    """Draws a patient twice as often as the accountant was told."""

    def poisson_sample(self, patients: int, rate: float):
        return super().poisson_sample(patients, min(1.0, 2 * rate))


class FixedSize(NoiseSource):
    """A shuffled batch of a fixed size, as most data loaders make, accounted as Poisson sampling."""

    def poisson_sample(self, patients: int, rate: float):
        order = np.argsort(self.words(patients), kind="stable")
        return np.sort(order[: round(rate * patients)])


class SameNoise(NoiseSource):
    """The same noise at every attempt, as from a seed that a checkpoint kept."""

    def fill(self, out: Float64, std: float) -> Float64:
        out[:] = np.random.default_rng(7).normal(0, std, len(out))
        return out


class Wrapped:
    """An engine around the real one."""

    def __init__(self, module: nn.Module, loss) -> None:
        self._inner: Gradients = PatientGradients(module, loss)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        self._inner.__exit__(*what)

    @property
    def size(self) -> int:
        return self._inner.size

    def clipped_sum(self, batch, clip: float, out: Tensor | None = None) -> Tensor:
        return self.clipped(batch, clip, out).total

    def clipped(self, batch, clip: float, out: Tensor | None = None, *, adding: bool = False) -> Clipped:
        return self._inner.clipped(batch, clip, out, adding=adding)


class Unclipped(Wrapped):
    """Clipping skipped."""

    def clipped(self, batch, clip: float, out: Tensor | None = None, *, adding: bool = False) -> Clipped:
        return super().clipped(batch, 1e9, out, adding=adding)


class ClippedPerImage(Wrapped):
    """Every image clipped as if it were a patient: ordinary DP-SGD, where patients have several images."""

    def clipped(self, batch, clip: float, out: Tensor | None = None, *, adding: bool = False) -> Clipped:
        return super().clipped(batch._replace(slots=torch.arange(len(batch.slots))), clip, out, adding=adding)


class UnnoticedBatchNorm(nn.Module):
    """Batch normalisation in train mode, hidden from every check before training: by class, by the names of its
    buffers, and by trial, because it does nothing while no gradient is asked for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.mean, self.variance, training=torch.is_grad_enabled())


def batch_norm_network(side: int, norm=UnnoticedBatchNorm) -> Network:
    """Two convolutions with batch normalisation between them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), norm(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten()
        )
        head = nn.Linear(8 * (side // 4) ** 2, 1)
    return Network(Halves(body, head), Blueprint("batch-norm", (), "all", 1, (side, side)))


def elsewhere(site: Site) -> SiteService:
    """A service that pays into a ledger nobody looks at, new with every start."""
    state = site.folder / "memory"
    state.mkdir(exist_ok=True)
    return SiteService(site, ImagingDuties(replace(site, state=state)))


class Unpaid(ImagingDuties):
    """Duties that train with the plan's noise and never ask the ledger."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._place = site

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        net = build(plan.model, plan.task.outputs, plan.input.shape[-2:])
        set_arrays(net, instruction.arrays)
        bucket = 30
        data = load_dataset(self._place, plan).train
        result = train(net, data, plan, dp=DpPlan.from_plan(plan, bucket), round=instruction.round)
        return Update(
            self._place.name,
            instruction.run,
            instruction.round,
            instruction.plan_digest,
            code_digest(),
            bucket,
            result.delta,
            Progress(None, None),
            simulated=True,
        )


def unpaid(site: Site) -> SiteService:
    """The service with those duties."""
    return SiteService(site, Unpaid(site))


def noise(source: type[NoiseSource]) -> Parts:
    """The real parts with another source of chance."""
    return Parts(noise=source)


def engine(which: type[Wrapped]) -> Parts:
    """The real parts with another engine."""
    return Parts(engine=which)
