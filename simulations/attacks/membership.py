"""Who was among the training patients? Asked of finished models, by the loss and by likelihood ratio.

Each of several models is trained on a random half of the same patients. The likelihood-ratio attack (LiRA,
Carlini et al. 2022, section 5) takes all other models as shadows: per patient two Gaussians of the model's
confidence, in and out, with one common width, and the ratio of their densities. The loss attack
(Yeom et al. 2018) asks only how well the model does on the patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from client.patients import PatientSet
from client.privacy.plan import DpPlan
from client.training import train
from common.messages import Estimate
from common.plan import Plan
from simulations.attacks.images import Pictures, patients
from simulations.attacks.networks import perceptron
from simulations.attacks.records import Membership
from simulations.attacks.target import Target

_HIDDEN: Final = 32
_FPR: Final = 0.01
_RESAMPLES: Final = 300

Scores = npt.NDArray[np.float64]
"""[models, patients]"""
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Crowd:
    """Many models of the same patients, and who was in which."""

    confidence: Scores
    """Logit of the true class."""
    members: Flags
    """[models, patients]"""


def train_crowd(target: Target, pictures: Pictures, plan: Plan, models: int, seed: int) -> Crowd:
    """Train every model on its own random half of the patients, through the real path.

    Args:
        target: the code under audit.
        pictures: one of each patient.
        plan: with or without privacy; all its rounds are trained.
        models: how many.
        seed: of the halves.
    """
    rng = np.random.default_rng(seed)
    # With labels drawn at random nothing can be learned but by heart: the worst case for a patient.
    everyone = patients(_centred(pictures), rng.integers(2, size=len(pictures)).astype(np.float32))
    count = everyone.n_patients
    members = np.stack([_half(rng, count) for _ in range(models)])
    rows = [_confidence(target, everyone, plan, half) for half in members]
    return Crowd(np.stack(rows), members)


def judge(crowd: Crowd, arm: str, attack: str, plan: Plan, seed: int) -> Membership:
    """How well an attack tells members from others; intervals over models."""
    scores = _likelihood_ratios(crowd) if attack == "likelihood-ratio" else crowd.confidence
    rng = np.random.default_rng(seed)
    models, count = scores.shape
    draws = [rng.integers(models, size=models) for _ in range(_RESAMPLES)]
    found = [_rates(scores, crowd.members), *(_rates(scores[draw], crowd.members[draw]) for draw in draws)]
    auc, tpr = (_estimate([pair[i] for pair in found]) for i in (0, 1))
    epsilon = plan.privacy.epsilon if plan.private else None
    return Membership(arm, attack, epsilon, models, count, auc, tpr, _ceiling(plan))


def _confidence(target: Target, everyone: PatientSet, plan: Plan, half: Flags) -> Scores:
    chosen = everyone.subset(np.flatnonzero(half))
    # All models start from the same weights: the server made them, so its shadows may.
    net = perceptron(plan.input.shape[-1], _HIDDEN, plan.model.init_seed)
    dp = DpPlan.from_plan(plan, chosen.n_patients) if plan.private else None
    for number in range(1, plan.federation.rounds + 1):
        train(net, chosen, plan, dp=dp, round=number, device="cpu", parts=target.parts)
    net.eval()
    with torch.no_grad():
        logits = net(everyone.tensor(np.arange(everyone.n_images))).numpy()[:, 0]
    return np.asarray(np.where(everyone.labels[:, 0] > 0.5, logits, -logits), dtype=np.float64)


def _likelihood_ratios(crowd: Crowd) -> Scores:
    """Log density ratio of each model's confidence about each patient, by all other models."""
    ratios = np.zeros_like(crowd.confidence)
    for model in range(len(ratios)):
        others = np.arange(len(ratios)) != model
        inside, values = crowd.members[others], crowd.confidence[others]
        means = []
        for which in (inside, ~inside):
            counts = np.maximum(which.sum(axis=0), 1)
            means.append((values * which).sum(axis=0) / counts)
        width = np.where(inside, values - means[0], values - means[1]).var() + 1e-12
        mine = crowd.confidence[model]
        ratios[model] = ((mine - means[1]) ** 2 - (mine - means[0]) ** 2) / (2 * width)
    return ratios


def _rates(scores: Scores, members: Flags) -> tuple[float, float]:
    truth, flat = members.ravel(), scores.ravel()
    fpr, tpr, _ = roc_curve(truth, flat)
    return float(roc_auc_score(truth, flat)), float(tpr[fpr <= _FPR].max())


def _estimate(values: list[float]) -> Estimate:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Estimate(values[0], float(low), float(high))


def _ceiling(plan: Plan) -> float | None:
    """Kairouz, Oh, Viswanath 2015: TPR is at most e^ε FPR + δ, and at most 1 - e^-ε (1 - δ - FPR)."""
    if not plan.private:
        return None
    grown = math.exp(plan.privacy.epsilon)
    delta = plan.privacy.delta
    return min(1.0, grown * _FPR + delta, 1 - (1 - delta - _FPR) / grown)


def _centred(pictures: Pictures) -> Pictures:
    """Each picture with mean 0 and standard deviation 1, as a plan's `zscore` would have it."""
    mean, std = pictures.mean(axis=(1, 2), keepdims=True), pictures.std(axis=(1, 2), keepdims=True)
    return np.asarray((pictures - mean) / std, dtype=np.float32)


def _half(rng: np.random.Generator, count: int) -> Flags:
    flags = np.zeros(count, dtype=np.bool_)
    flags[rng.permutation(count)[: count // 2]] = True
    return flags
