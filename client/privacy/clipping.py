"""What clipping is, whoever computes the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from common.errors import PrivacyRefused

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [n, outputs], targets, weights [n]) to losses [n]."""


MARGIN: Final = 2.0**-8
"""Share of C kept free for rounding: vectors are cut to C (1 - MARGIN), 0.4% short of it.

What is summed and measured in float32 is not quite what the mathematics says, and a bound that holds only on
paper is no bound (Casacuberta et al. 2022). Four things round: a norm, the scaled vector, the sum, and the
gradients of everybody else, which depend in their last bits on how many images share a batch. The first three
took 7e-7 of C at most in any network; the last, where it moves an activation across zero, 4.5e-4 in ResNet50
(docs/dp-speed.md). So an eighth of the margin has been seen in use.
"""


class Labelled(NamedTuple):
    """Images of whole patients with what is true of them."""

    inputs: Tensor
    """[n, ...] images or feature maps."""
    targets: Tensor
    """[n, ...]"""
    slots: Tensor
    """[n] int64, the patient of each image, ascending from 0, each at least once."""


class Clipped(NamedTuple):
    """What clipping leaves of a batch."""

    total: Tensor
    """[numbers]: the sum over patients of their clipped mean gradient."""
    within: Tensor
    """int64 []: how many patients' norm was finite and at most the clip. Exact: it must not leave without noise."""


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """What each patient's vector is multiplied by: at most 1, at most C (1 - MARGIN) / norm, 0 if not finite.

    Args:
        norms: float64 [patients].
        clip: C.

    Returns:
        float64 [patients]; each a float32 number, rounded down, so that nobody who multiplies rounds it up.
    """
    exact = (clip * (1 - MARGIN) / norms).clamp(max=1.0)
    near = exact.to(torch.float32)
    down = torch.where(near > exact, torch.nextafter(near, torch.zeros_like(near)), near).to(norms.dtype)
    return torch.where(torch.isfinite(norms), down, torch.zeros_like(down))


def count_within(norms: Tensor, clip: float) -> Tensor:
    """How many norms are at most `clip`, int64 []; one that is not a number is not."""
    return (norms <= clip).sum()


def unused() -> PrivacyRefused:
    """The refusal of a parameter that has no gradient to clip."""
    return PrivacyRefused(
        "network",
        "a trainable parameter takes no part in the forward pass, so it has no gradient to clip",
        "Freeze it, or choose another trainable part",
        code="dp-unused",
    )
