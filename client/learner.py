"""A network made ready to learn from one hospital's patients: its inputs, its mode, its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from client import augment
from client.batches import Batch, Roster
from client.device import PhysicalBatch, channels_together, mixed_precision, on_every_gpu
from client.features import cache
from client.patients import PatientSet
from common.errors import DataError, PrivacyRefused
from common.models import Network
from common.models.losses import Loss, loss_for
from common.plan import Plan
from common.plan_training import Augmentation

IMAGES_ON_DEVICE = 64
"""Images through a network at a time; halved when the device's memory is full."""
MAPS_ON_DEVICE = 4096
"""The same where only a small head is trained on feature maps."""


class Head(nn.Module):
    """A network seen from its feature maps: [batch, ...] maps to logits [batch, outputs]."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, maps: Tensor) -> Tensor:
        """Logits of feature maps."""
        return self.net.classify(maps)


@dataclass(frozen=True)
class Learner:
    """What a training step works on."""

    net: Network
    module: nn.Module
    """Inputs to logits: the network, or only its head where features are frozen."""
    data: PatientSet
    maps: Tensor | None
    """Feature maps of every image where `module` is the head."""
    labels: Tensor
    roster: Roster
    loss: Loss
    augmentation: Augmentation
    device: torch.device
    physical: PhysicalBatch

    @classmethod
    def of(cls, net: Network, data: PatientSet, plan: Plan, device: torch.device) -> Learner:
        """Make ready; the network is moved to the device and put in training mode.

        Raises:
            DataError: `no-patients`.
            PrivacyRefused: `dp-batch-norm` when a layer would learn statistics of the patients.
        """
        if not data.n_images:
            raise DataError("training patients", "there are none", "Ingest more studies", code="no-patients")
        if any(parameter.device != device for parameter in net.parameters()) or any(
            True for _ in net.buffers()
        ):
            net.to(device)
        if device.type == "cpu" and not plan.private:
            channels_together(net)
        training_mode(net)
        maps = None
        if net.frozen_features and not plan.training.augmentation.active:
            maps = cache.maps(net, data, device)
            training_mode(net)
        return cls(
            net=net,
            module=net if maps is None else Head(net),
            data=data,
            maps=maps,
            labels=torch.from_numpy(np.ascontiguousarray(data.labels)),
            roster=Roster(data.patient_of, data.n_patients),
            loss=loss_for(plan),
            augmentation=plan.training.augmentation,
            device=device,
            physical=PhysicalBatch(IMAGES_ON_DEVICE if maps is None else MAPS_ON_DEVICE),
        )

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """What may learn, in the network's order."""
        return list(self.net.trainable().values())

    def inputs(self, batch: Batch) -> Tensor:
        """The batch's images, augmented as drawn, or its feature maps; on the device."""
        if self.maps is not None:
            return self.maps[torch.from_numpy(batch.images)].to(self.device)
        images = self.data.tensor(batch.images).to(self.device)
        return images if batch.draws is None else augment.apply(batch.draws, images)

    def targets(self, batch: Batch) -> Tensor:
        """The batch's labels, on the device."""
        return self.labels[torch.from_numpy(batch.images)].to(self.device)

    def augmented(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with its augmentation drawn, where the plan asks for one."""
        if not self.augmentation.active:
            return batch
        draws = augment.draw(rng, self.augmentation, len(batch.images))
        return Batch(batch.images, batch.slots, batch.patients, draws)

    def gradient(self, batch: Batch) -> None:
        """Leave in `.grad` the gradient of the batch's loss: mean over patients of their images' mean."""
        self.physical.attempt(lambda images: self._gradient(batch, images))

    def _gradient(self, batch: Batch, images: int) -> None:
        module = on_every_gpu(self.module, self.device)
        for parameter in self.parameters:
            parameter.grad = None
        for part in batch.parts(images):
            weights = torch.from_numpy(part.weights / np.float32(batch.patients)).to(self.device)
            with mixed_precision(self.device, private=False):
                logits = cast("Tensor", module(self.inputs(part)))
            torch.autograd.backward(self.loss(logits.float(), self.targets(part), weights).sum())


def training_mode(net: Network) -> None:
    """Training mode for what may learn, evaluation mode for what is frozen.

    Raises:
        PrivacyRefused: `dp-batch-norm`: batch normalisation that learns writes patients into buffers.
    """
    net.train()
    all_learn = all(p.requires_grad for p in net.parameters()) and not any(True for _ in net.buffers())
    if all_learn and not any(isinstance(module, _BatchNorm) for module in net.modules()):
        return
    for name, module in net.named_modules():
        holds = [] if all_learn else [*module.parameters(), *module.buffers()]
        if holds and not any(p.requires_grad for p in module.parameters()):
            module.eval()
        if isinstance(module, _BatchNorm) and module.training:
            raise PrivacyRefused(
                f"network layer {name}",
                "batch normalisation in training mode keeps statistics of the patients",
                "Use a network with group normalisation, or freeze the layer",
                code="dp-batch-norm",
            )
