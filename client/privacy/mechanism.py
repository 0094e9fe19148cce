"""One private step: draw patients, sum their clipped gradients, add noise once, divide by a constant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from client.batches import Batch, up_to
from client.learner import Learner
from client.privacy.adaptive import AdaptiveClip
from client.privacy.ahead import NoiseAhead, noised
from client.privacy.clipping import Clipped, Labelled
from client.privacy.engine import Gradients
from client.privacy.noise import Float64, NoiseSource
from client.privacy.plan import DpPlan
from common.errors import PrivacyRefused
from common.models import Network, dp_problems


class Mechanism:
    """The Poisson-subsampled Gaussian mechanism on one hospital's patients.

    Args:
        learner: the network and its patients.
        dp: how.
        gradients: per-patient gradients of the learner's module.
        ahead: noise of the plan's scale, made on another thread; made here and now when None.
        source: of who is drawn, and of noise not made ahead; a new one when None.
    """

    def __init__(
        self,
        learner: Learner,
        dp: DpPlan,
        gradients: Gradients,
        ahead: NoiseAhead | None = None,
        source: NoiseSource | None = None,
    ) -> None:
        self._learner = learner
        self._dp = dp
        self._clip = dp.clip
        self._gradients = gradients
        self._noise = source or NoiseSource()
        self._ahead = ahead
        self._rooms: dict[torch.dtype, Tensor] = {}

    def draw(self, rng: np.random.Generator) -> Batch:
        """A Poisson sample of the patients, up to K images or augmented views of each; it may be empty.

        Args:
            rng: for augmentation only, and known to nobody: its next draw goes to whoever stands next in the batch.
                Who is drawn comes from the operating system.
        """
        roster, views = self._learner.roster, self._learner.augmentation.active
        drawn = self._noise.poisson_sample(roster.patients, self._dp.sampling_rate)
        batch = roster.batch(drawn, up_to(self._dp.images_per_patient, self._noise.choose, views=views))
        return self._learner.augmented(batch, rng)

    @property
    def clip(self) -> float:
        """C of the next step; known from what was released."""
        return self._clip

    def gradient(self, batch: Batch) -> None:
        """Leave in `.grad` the noisy mean gradient; noise is added once, also to an empty batch.

        Where C adapts, the noisy count of patients within it then moves it for the next step.
        """
        for parameter in self._learner.parameters:
            parameter.grad = None  # it lies where the bare sum is about to be
        total, within = self._learner.physical.attempt(lambda images: self._clipped(batch, images))
        mean = noised(
            total, self._fresh_noise(len(total)), self._dp.expected_batch, self._room(torch.float32)
        )
        start = 0
        for parameter in self._learner.parameters:
            part = mean[start : start + parameter.numel()].reshape(parameter.shape)
            parameter.grad = part.to(parameter.dtype)
            start += parameter.numel()
        if self._dp.adaptive is not None:
            noisy = self._noisy_count(int(within) - batch.patients / 2, self._dp.adaptive)
            self._clip = self._dp.adaptive.moved(self._clip, noisy, self._dp.expected_batch)

    def _fresh_noise(self, count: int) -> Iterator[Float64]:
        if self._ahead is None:
            yield from self._noise.chunks(count, self._dp.sum_multiplier * self._clip)
            return
        for chunk in self._ahead.take():
            if self._clip != self._dp.clip:  # it was made for the C of the first step
                chunk *= self._clip / self._dp.clip  # noqa: PLW2901 (in place: the chunk is ours until the next)
            yield chunk

    def _noisy_count(self, centred: float, rule: AdaptiveClip) -> float:
        return centred + float(self._noise.gaussian(1, rule.count_std)[0])

    def _clipped(self, batch: Batch, images: int) -> Clipped:
        """Clipped sum and count of a batch, in parts of so many images; the next call overwrites the sum.

        What one pass sums is float32. The sums of several are added in double precision.
        """
        learner, parts = self._learner, list(batch.parts(images))
        total = self._room(torch.float32 if len(parts) == 1 else torch.float64)
        within = torch.zeros((), dtype=torch.int64, device=learner.device)
        for number, part in enumerate(parts):
            slots = torch.from_numpy(part.slots).to(learner.device)
            labelled = Labelled(learner.inputs(part), learner.targets(part), slots)
            within += self._gradients.clipped(labelled, self._clip, total, adding=number > 0).within
        return Clipped(total if parts else total.zero_(), within)

    def _room(self, dtype: torch.dtype) -> Tensor:
        """Memory kept from step to step, [numbers]: fresh memory of this size costs more than to fill it."""
        if dtype not in self._rooms:
            self._rooms[dtype] = torch.empty(self._gradients.size, dtype=dtype, device=self._learner.device)
        return self._rooms[dtype]


def refuse_unsafe(net: Network) -> None:
    """Refuse by name a network that cannot be trained under differential privacy.

    Raises:
        PrivacyRefused: `dp-<reason>`, with every reason in its text.
    """
    problems = dp_problems(net)
    if problems:
        raise PrivacyRefused(
            f"network {net.blueprint.name}",
            "; ".join(problems),
            "Choose another network or another trainable part",
            code="dp-" + problems[0].partition(":")[0],
        )
