"""The sum of one clipped vector per patient: the only thing noise is ever added to.

A patient's vector is the mean gradient over the images of theirs in the batch, over all trainable
parameters together, scaled down to norm C where it is longer. Whoever computes it keeps one promise:
no patient moves the sum by more than C.
"""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor, nn

from client.privacy.bookkeeping.engine import BookKeeping
from client.privacy.bookkeeping.ways import plain
from client.privacy.clipping import Clipped, Labelled, Loss, clip_factors
from common.errors import PrivacyRefused

__all__ = ["Clipped", "Gradients", "Labelled", "PatientGradients", "clip_factors"]


class Gradients(Protocol):
    """Clipped per-patient gradients of one module; a context manager."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Leave the module as it was."""

    @property
    def size(self) -> int:
        """Number of trainable numbers."""

    def clipped_sum(self, batch: Labelled, clip: float, out: Tensor | None = None) -> Tensor:
        """Sum over patients of their mean gradient, clipped to `clip`; [size], in `out`, else float64."""

    def clipped(
        self, batch: Labelled, clip: float, out: Tensor | None = None, *, adding: bool = False
    ) -> Clipped:
        """The same with the number of patients whose gradient was not clipped; added to `out` if so wished."""


def PatientGradients(module: nn.Module, loss: Loss) -> Gradients:  # noqa: N802 (it makes one)
    """The quickest engine that knows every layer of the module: book-keeping, else Opacus.

    Raises:
        PrivacyRefused: `dp-padding`: a convolution pads in a way that neither of them knows.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and not plain(layer):
            raise PrivacyRefused(
                f"network layer {name}",
                "it pads with something other than zeros, or more on one side than on the other",
                "Use zero padding of equal width",
                code="dp-padding",
            )
    if BookKeeping.fits(module):
        return BookKeeping(module, loss)
    from client.privacy.opacus_engine import OpacusGradients  # noqa: PLC0415 - slow to import, and rarely needed

    return OpacusGradients(module, loss)
