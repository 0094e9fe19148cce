"""Which images of a batch belong to which patient: contiguous runs, one a patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spans:
    """The runs of images of a batch whose slots ascend.

    Args:
        slots: [images] int64, ascending from 0, each patient at least once.
    """

    slots: Tensor

    @cached_property
    def counts(self) -> list[int]:
        """Images of each patient."""
        return [int(count) for count in torch.bincount(self.slots).tolist()]

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(self.counts)

    @property
    def weights(self) -> Tensor:
        """1 / (images of the same patient), float64 [images]: a patient's images are averaged."""
        return torch.bincount(self.slots).to(torch.float64).reciprocal()[self.slots]

    @property
    def single(self) -> bool:
        """Whether every patient has exactly one image."""
        return self.patients == len(self.slots)

    @cached_property
    def equal(self) -> int:
        """The number of images of every patient where it is the same for all, else 0."""
        return self.counts[0] if len(set(self.counts)) == 1 else 0

    def parts(self) -> list[slice]:
        """The run of each patient."""
        ends = torch.tensor(self.counts).cumsum(0).tolist()
        return [slice(end - count, end) for end, count in zip(ends, self.counts, strict=True)]

    def sums(self, values: Tensor) -> Tensor:
        """[images, ...] to [patients, ...]: the sum over each patient's images."""
        if self.single:
            return values
        if self.equal:
            return values.reshape(self.patients, self.equal, *values.shape[1:]).sum(dim=1)
        total = values.new_zeros(self.patients, *values.shape[1:])
        return total.index_add_(0, self.slots, values)

    def laid_out(self, values: Tensor) -> Tensor:
        """[images, positions, channels] to [patients, most images * positions, channels], zeros where none is.

        A patient's images lie end to end along the positions, so that one Gram matrix covers them all.
        """
        if self.single:
            return values
        _, positions, channels = values.shape
        if self.equal:
            return values.reshape(self.patients, self.equal * positions, channels)
        most = max(self.counts)
        rank = torch.cat([torch.arange(count) for count in self.counts]).to(self.slots.device)
        padded = values.new_zeros(self.patients, most, positions, channels)
        padded[self.slots, rank] = values
        return padded.reshape(self.patients, most * positions, channels)
