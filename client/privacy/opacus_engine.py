"""Per-sample gradients by Opacus's hooks: the oracle of the tests, and the way of layers that it alone knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from client.privacy.bookkeeping.room import Room
from client.privacy.clipping import Clipped, Labelled, Loss, clip_factors, count_within, unused

_CHUNK: Final = 1 << 22
"""Numbers added in double precision at a time (32 MiB), so that the upcast copy stays small."""

_LEFT_BEHIND: Final = (
    "activations",
    "max_batch_len",
    "grad_sample",
    "_current_grad_sample",
    "_forward_counter",
)
"""What Opacus hangs on modules and parameters during a pass."""


class OpacusGradients:
    """Clipped per-patient gradients of a module; a context manager that takes its hooks off again.

    Args:
        module: inputs to logits; its parameters with requires_grad are the trainable ones.
        loss: per-image losses; must not mix the images of a batch.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        self._plain = module
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._module = GradSampleModule(module, loss_reduction="sum")
        self._loss = loss

    def __enter__(self) -> Self:
        """Use as `with OpacusGradients(...) as gradients`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hooks and what they left behind."""
        self._unhook()

    @property
    def size(self) -> int:
        """Number of trainable numbers."""
        return sum(p.numel() for p in self._parameters)

    def clipped_sum(self, batch: Labelled, clip: float, out: Tensor | None = None) -> Tensor:
        """Sum over patients of their mean gradient, clipped to `clip`; [size].

        Args:
            batch: images or feature maps of whole patients, with their targets.
            clip: C.
            out: where the sum is written, [size]; a new float64 tensor when None.

        Raises:
            PrivacyRefused: `dp-unused` when a trainable parameter has no gradient at all.
        """
        return self.clipped(batch, clip, out).total

    def clipped(
        self, batch: Labelled, clip: float, out: Tensor | None = None, *, adding: bool = False
    ) -> Clipped:
        """The same with the number of patients whose gradient was not clipped; see `clipped_sum`.

        Args:
            batch: as there.
            clip: C.
            out: as there.
            adding: to what `out` holds already.
        """
        per_patient = self._per_patient(*batch)
        squares = [torch.linalg.vector_norm(g, dim=1, dtype=torch.float64).square() for g in per_patient]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        factors = clip_factors(norms, clip)
        room = Room(self._parameters, out, adding=adding)
        for parameter, vectors in zip(self._parameters, per_patient, strict=True):
            room.put({parameter: _weighted_sum(factors, vectors)})
        return Clipped(room.total, count_within(norms, clip))

    def _per_patient(self, inputs: Tensor, targets: Tensor, slots: Tensor) -> list[Tensor]:
        """Mean gradient of each patient, [patients, numbers] for each parameter."""
        self._clear()
        counts = torch.bincount(slots)
        weights = (1.0 / counts)[slots]
        try:
            with _quiet_hooks():
                losses = self._loss(self._module(inputs), targets, torch.ones_like(weights))
                torch.autograd.backward((losses * weights).sum())
        except BaseException:
            # Half a pass, for instance when memory ran out, leaves activations that the next pass
            # would take for its own.
            self._unhook()
            self._module = GradSampleModule(self._plain, loss_reduction="sum")
            raise
        each = [self._take(p).reshape(len(inputs), -1) for p in self._parameters]
        self._clear()
        if len(counts) == len(inputs):
            return each
        return [g.new_zeros(len(counts), g.shape[1]).index_add_(0, slots, g) for g in each]

    @staticmethod
    def _take(parameter: nn.Parameter) -> Tensor:
        sample = getattr(parameter, "grad_sample", None)
        if isinstance(sample, list):
            return torch.stack(sample).sum(dim=0)
        if not isinstance(sample, Tensor):
            raise unused()
        return sample.detach()

    def _unhook(self) -> None:
        self._clear()
        self._module.to_standard_module()
        for holder in (*self._plain.modules(), *self._parameters):
            for name in _LEFT_BEHIND:
                holder.__dict__.pop(name, None)

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus puts it there


def _weighted_sum(factors: Tensor, vectors: Tensor) -> Tensor:
    """Sum over patients of factor * vector, in double precision; [patients, numbers] to [numbers]."""
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    step = max(1, _CHUNK // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step].to(torch.float64)
        factor = factors[start : start + step]
        # 0 * inf is not 0: a patient whose gradient is not finite must contribute exactly nothing.
        part = torch.where(factor[:, None] > 0, part, torch.zeros_like(part))
        total += factor @ part
    return total


@contextmanager
def _quiet_hooks() -> Iterator[None]:
    """Opacus hooks a first layer whose input needs no gradient on purpose; torch warns about that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
