"""Where the arithmetic happens, and what to do when its memory is full."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeVar

import torch
from torch import nn

from common.errors import StorageError
from common.logs import Log

_LOG: Final = Log("client.device")
T = TypeVar("T")
_IMAGES: Final = 4
"""Dimensions of what a convolution works on and with."""


def choose_device(name: str | None = None) -> torch.device:
    """The device asked for, or the first CUDA device where there is one, or the CPU."""
    if name is not None:
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class PhysicalBatch:
    """How many images are on the device at once; halves itself when the device is full.

    The logical batch, and with it the result up to rounding, does not depend on it.
    """

    def __init__(self, images: int) -> None:
        self.images = images

    def attempt(self, step: Callable[[int], T]) -> T:
        """Run `step(images)`; when memory runs out, halve and run the whole step again.

        `step` must not leave anything behind when it fails.

        Raises:
            StorageError: `device-memory` when not even one image fits.
        """
        while True:
            try:
                return step(self.images)
            except torch.OutOfMemoryError:
                if self.images <= 1:
                    raise StorageError(
                        "device memory",
                        "not even one patient fits",
                        "Use a smaller network or input, or another device",
                        code="device-memory",
                    ) from None
                self.images //= 2
                _LOG.warning("device.memory_full", images=self.images)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def mixed_precision(device: torch.device, *, private: bool) -> AbstractContextManager[object]:
    """Half precision on CUDA for training without DP; elsewhere nothing.

    Under DP the clip bound must hold to rounding, so that gradients stay in full precision there.
    """
    if private or device.type != "cuda" or not torch.cuda.is_bf16_supported():
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16)


def channels_together(net: nn.Module) -> None:
    """Lay the filters of convolutions out so that the channels of a pixel lie side by side; numbers stay as they are.

    A step of plain training then takes 0.7 to 0.9 of its time on a processor (docs/simulation-speed.md). What is
    computed afterwards is the same up to rounding, so whoever compares bits lays out both.
    """
    for parameter in net.parameters():
        if parameter.dim() == _IMAGES and parameter.stride(1) != 1:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


def on_every_gpu(module: nn.Module, device: torch.device) -> nn.Module:
    """The module spread over all GPUs of the machine where there are several."""
    if device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1:
        return nn.DataParallel(module)
    return module
