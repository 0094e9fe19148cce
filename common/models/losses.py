"""Losses of one image each, because clipping and averaging are by patient and happen later."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.plan import Plan


@dataclass(frozen=True)
class Loss:
    """The plan's loss, called as `loss(logits, targets, weights)`; returns one value an image, [batch]."""

    exclusive: bool
    """One class an image (multiclass), rather than a yes or no for each output."""
    gamma: float
    """Focusing exponent; 0 is plain cross-entropy (Lin et al., "Focal loss", 2017, equation 4)."""
    positive_weight: float
    """Factor on the loss of a finding that is there: on a positive output, or on any class but the first."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Loss of each image, in nats.

        Args:
            logits: float32 [batch, outputs].
            targets: int64 class numbers [batch] if `exclusive`, else 0 or 1 [batch, outputs] (or [batch]
                for a single output).
            weights: factor on each image [batch]; 1 where not given.
        """
        losses = self._exclusive(logits, targets) if self.exclusive else self._each(logits, targets)
        return losses if weights is None else losses * weights

    def _each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, averaged over the outputs of an image."""
        truth = targets.reshape(logits.shape).to(logits.dtype)
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        weighted = (
            entropy if self.positive_weight == 1 else entropy * (1 + (self.positive_weight - 1) * truth)
        )
        if self.gamma == 0:  # the same bits as with a factor of one, in half the time
            return weighted.mean(dim=1)
        # The chance the network gives to the wrong answer is the sigmoid of the logit turned round.
        return (weighted * self._focus(functional.logsigmoid(logits * (1 - 2 * truth)))).mean(dim=1)

    def _exclusive(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the one true class."""
        entropy = functional.cross_entropy(logits, targets.reshape(-1).long(), reduction="none")
        weight = torch.where(targets.reshape(-1) > 0, self.positive_weight, 1.0).to(logits.dtype)
        return entropy * weight * self._focus(torch.log(-torch.expm1(-entropy).clamp(max=-1e-12)))

    def _focus(self, log_wrong: Tensor) -> Tensor:
        """(1 - p)^gamma from the logarithm of 1 - p, which keeps its gradient finite at p = 1."""
        return torch.ones_like(log_wrong) if self.gamma == 0 else torch.exp(self.gamma * log_wrong)


def loss_for(plan: Plan) -> Loss:
    """The loss that `plan.training` and `plan.task` ask for."""
    training = plan.training
    gamma = training.focal_gamma if training.loss == "focal" else 0.0
    return Loss(plan.task.kind == "multiclass", gamma, training.positive_weight)
