"""Inverting Gradients (Geiping, Bauermeister, Droege, Moeller 2020): search for the image whose gradient fits.

The server knows weights, label and the one image's noisy gradient, and turns a picture until the cosine between
its gradient and the one received is largest, with a price on total variation.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from simulations.attacks.images import Pictures, patients
from simulations.attacks.imprint import Arm, judged
from simulations.attacks.likeness import best_matches, guesses, smoothed
from simulations.attacks.networks import smooth
from simulations.attacks.records import Reconstructions
from simulations.attacks.target import Target, Vector, mechanism, plan_of, step_sum

_STEP: Final = 0.05
_ROUGHNESS: Final = (1e-4, 1e-2)
"""Prices on total variation that the attacker tries; the better picture counts."""


def arms(sigmas: tuple[float, ...]) -> tuple[Arm, ...]:
    """No protection, clipping alone, and each noise."""
    return (
        Arm("no protection", None),
        Arm("clipping alone", mechanism(0.0, 1)),
        *(Arm(f"one step, σ = {sigma:g}", mechanism(sigma, 1)) for sigma in sigmas),
    )


def attack(
    target: Target, original: Pictures, public: Pictures, arm: Arm, steps: int
) -> tuple[Reconstructions, Pictures]:
    """What the server makes of one patient's update.

    Args:
        target: the code under audit.
        original: [1, side, side].
        public: pictures of other patients.
        arm: how the hospital protects itself.
        steps: of the search.
    """
    side = original.shape[1]
    net = smooth(side, seed=1)
    seen = step_sum(target, net, patients(original), plan_of(side), arm.dp)
    return judged(arm, original, nearest(original, seen, steps), guesses(original, public))


def nearest(original: Pictures, seen: Vector, steps: int) -> Pictures:
    """What of everything that the search finds behind an update, or a sum of them, is most like the original."""
    side = original.shape[1]
    candidates = np.concatenate([_search(side, seen, steps, price) for price in _ROUGHNESS])
    return best_matches(original, smoothed(candidates))


def _search(side: int, seen: Vector, steps: int, price: float) -> Pictures:
    """The picture whose gradient points most nearly where the received one does; label 0, as `patients` gives it."""
    net = smooth(side, seed=1)
    wanted = torch.from_numpy(seen / max(float(np.linalg.norm(seen)), 1e-30)).float()
    picture = torch.full((1, 1, side, side), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([picture], _STEP)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parameters = list(net.trainable().values())
    for _ in range(steps):
        loss = functional.binary_cross_entropy_with_logits(net(picture), torch.zeros(1, 1))
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        away = 1 - flat @ wanted / flat.norm() + price * _variation(picture)
        (picture.grad,) = torch.autograd.grad(away, [picture])
        picture.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            picture.clamp_(0, 1)
    return picture.detach()[0].numpy()


def _variation(picture: Tensor) -> Tensor:
    down, across = picture.diff(dim=2).abs().mean(), picture.diff(dim=3).abs().mean()
    return down + across
