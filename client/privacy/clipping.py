"""What clipping is, whoever computes the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import PrivacyRefused

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [n, outputs], targets, weights [n]) to losses [n]."""


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
    """float64 [numbers]: the sum over patients of their clipped mean gradient."""
    within: Tensor
    """int64 []: how many patients' norm was finite and at most the clip. Exact: it must not leave without noise."""


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """What each patient's vector is multiplied by: at most 1, at most clip / norm, 0 if not finite."""
    factors = (clip / norms).clamp(max=1.0)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


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
