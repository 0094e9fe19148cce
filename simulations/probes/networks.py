"""A trained network as a `Model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch

from client.report import gradcam
from common.models import Network
from common.types import FloatArray
from simulations.probes.contract import Images, Model

_CHUNK: Final = 128


def model_of(net: Network) -> Model:
    """The network's logit of the (first) finding, what its last layer reads, and Grad-CAM; on the CPU, in evaluation mode."""
    net.eval()
    return Model(
        lambda images: _chunks(images, lambda part: net(part)[:, 0]),
        lambda images: _chunks(images, lambda part: net.features(part).flatten(1)),
        lambda images: gradcam(net, torch.from_numpy(images)[:, None]),
    )


@torch.no_grad()
def _chunks(images: Images, ask: Callable[[torch.Tensor], torch.Tensor]) -> FloatArray:
    parts = [torch.from_numpy(images[at : at + _CHUNK])[:, None] for at in range(0, len(images), _CHUNK)]
    return np.concatenate([ask(part).numpy().astype(np.float64) for part in parts])
