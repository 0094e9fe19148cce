"""Who was among the training patients? Asked of finished models, by the loss and by likelihood ratio.

For each of several models every patient is in or out by the toss of a coin, so that what epsilon says of one
patient more or less bounds what any attack can tell. The likelihood-ratio attack (LiRA,
Carlini et al. 2022, section 5) takes all other models as shadows: per patient two Gaussians of the model's
confidence, in and out, with one common width, and the ratio of their densities. The loss attack
(Yeom et al. 2018) asks only how well the model does on the patient.

The verdict is on the advantage, the true less the false positive rate, at a line that is drawn without knowing
who was in: a ratio of one, or the middle confidence. Under (epsilon, delta) no line anywhere gives more than
(e^epsilon - 1 + 2 delta) / (e^epsilon + 1) (Kairouz, Oh, Viswanath 2015, theorem 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from simulations.attacks.records import Check, Membership
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
    """Train every model on the patients that a coin chose for it, through the real path.

    Args:
        target: the code under audit.
        pictures: one of each patient.
        plan: with or without privacy; all its rounds are trained.
        models: how many.
        seed: of the coins.
    """
    rng = np.random.default_rng(seed)
    # With labels drawn at random nothing can be learned but by heart: the worst case for a patient.
    everyone = patients(_centred(pictures), rng.integers(2, size=len(pictures)).astype(np.float32))
    count = everyone.n_patients
    members = rng.random((models, count)) < 0.5
    rows = [_confidence(target, everyone, plan, who) for who in members]
    return Crowd(np.stack(rows), members)


def judge(crowd: Crowd, arm: str, attack: str, plan: Plan, seed: int) -> Membership:
    """How well an attack tells members from others; intervals over models."""
    ratio = attack == "likelihood-ratio"
    scores = _likelihood_ratios(crowd) if ratio else crowd.confidence
    line = 0.0 if ratio else float(np.median(scores))
    rng = np.random.default_rng(seed)
    models, count = scores.shape
    draws = [rng.integers(models, size=models) for _ in range(_RESAMPLES)]
    told = scores, crowd.members
    found = [_rates(*told, line), *(_rates(told[0][draw], told[1][draw], line) for draw in draws)]
    auc, tpr, advantage = (_estimate([rates[i] for rates in found]) for i in range(3))
    epsilon = plan.privacy.epsilon if plan.private else None
    allowed = allowed_advantage(epsilon, plan.privacy.delta) if epsilon is not None else None
    return Membership(
        arm, attack, epsilon, models, count, auc, tpr, advantage, allowed=allowed, ceiling=_ceiling(plan)
    )


def allowed_advantage(epsilon: float, delta: float) -> float:
    """The largest true less false positive rate of any attack on an (epsilon, delta)-private release."""
    return (math.expm1(epsilon) + 2 * delta) / (math.exp(epsilon) + 1)


def verdicts(rows: Sequence[Membership]) -> Iterator[Check]:
    """One claim for each arm under privacy, and that the same attack succeeds where there is none."""
    for row in rows:
        if row.allowed is not None:
            yield Check(
                f"membership, {row.arm}, {row.attack.replace('-', ' ')}",
                "the attack's advantage does not contradict the claimed ε (lower end of its interval, 95%)",
                row.advantage.low,
                None,
                row.allowed,
                passed=row.advantage.low <= row.allowed,
                note=f"advantage {row.advantage.value:.2f}",
            )
    bare = [row.advantage for row in rows if row.epsilon is None]
    if bare:
        best = max(bare, key=lambda one: one.low)
        least = allowed_advantage(1.0, 0.0)
        claim = "without protection the same attack has a larger advantage than ε = 1 would allow"
        told = f"advantage {best.value:.2f}"
        yield Check("membership, power", claim, best.low, least, None, passed=best.low > least, note=told)


def _confidence(target: Target, everyone: PatientSet, plan: Plan, who: Flags) -> Scores:
    chosen = everyone.subset(np.flatnonzero(who))
    # All models start from the same weights: the server made them, so its shadows may.
    net = perceptron(plan.input.shape[-1], _HIDDEN, plan.model.init_seed)
    # The bucket is public: the expected number, and not how many the coins chose.
    dp = DpPlan.from_plan(plan, everyone.n_patients // 2) if plan.private else None
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


def _rates(scores: Scores, members: Flags, line: float) -> tuple[float, float, float]:
    truth, flat = members.ravel(), scores.ravel()
    fpr, tpr, _ = roc_curve(truth, flat)
    advantage = float((flat[truth] > line).mean() - (flat[~truth] > line).mean())
    return float(roc_auc_score(truth, flat)), float(tpr[fpr <= _FPR].max()), advantage


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
