"""The same patients through another machine: how far scores move, and what the machine does to the AUROC.

Judged. Write S[i, m] for the score of patient i on machine m, and m(i) for the patient's own machine.

    before   AUROC of S[i, m(i)]: as imaged
    after    AUROC when every patient's machine is dealt anew without regard for the truth, in the same shares q:
             the mean over deals, which is the AUROC of all S[i, m] with weight q_m (a pair of an ill and a healthy
             patient is right with probability sum_m sum_n q_m q_n [S(ill, m) > S(healthy, n)])
    T        before - after: what the choice of machine adds to (or takes from) the separation
    p        share of 1 + n deals whose |T| is at least as large, the observed one counted (Phipson and Smyth 2010)

Under the null the deal that happened is one of those that could have: either who came to which machine had nothing to do with
who is ill, and then p is exact whatever machines do to scores; or no score depends on the machine, and then T is 0 in every
deal and p is 1. So a machine that is merely worse raises no alarm here (it does among the gaps), and
neither does one that is merely recognised. T > 0: the model is flattered by the machine; T < 0: harmed, as where
the link between machine and illness is the other way round.

Deals are permutations of own machines: among all patients, and inside each hospital that has two machines. Holm over those.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.stats import rankdata

from common.messages import Estimate
from common.statistics.permutation import holm
from common.types import FloatArray
from server.records_bias import Chance, Probe
from simulations.probes.contract import Counterfactual, Truth, chances

DEALS: Final = 1999
_RESAMPLES: Final = 300
_LEAST: Final = 5
"""Ill patients, and healthy, below which a hospital is not judged by itself."""
ALL: Final = "all"


def swap(
    cohort: Counterfactual, rng: np.random.Generator, deals: int = DEALS, resamples: int = _RESAMPLES
) -> tuple[Probe, ...]:
    """What the choice of machine does to the AUROC, among all and by hospital.

    Args:
        cohort: scores of the same patients on every machine.
        rng: of deals and of the bootstrap.
        deals: permutations.
        resamples: of patients, for intervals; 0: none (they are then as wide as can be).
    """
    scopes = {ALL: np.ones(len(cohort.truth), dtype=bool)}
    names = np.unique(cohort.sites)
    if len(names) > 1:
        scopes |= {str(name): cohort.sites == name for name in names}
    judged = {name: cohort.of(which) for name, which in scopes.items() if _can(cohort.of(which))}
    tested = {name: _tested(part, rng, deals) for name, part in judged.items()}
    adjusted = holm(np.array([p for p, _ in tested.values()]))
    found = []
    for (name, part), after in zip(judged.items(), adjusted, strict=True):
        p, band = tested[name]
        figure, areas = _figures(part, rng, resamples)
        found.append(
            Probe(
                "swap", "manufacturer", figure, judged=True, patients=len(part.truth), where=name, chance=band,
                p=p, holm=float(after), before=areas[0], after=areas[1],
            )
        )  # fmt: skip
    return tuple(found)


def moves(cohort: Counterfactual) -> tuple[Probe, ...]:
    """How far the probability moves when a patient is taken from one machine to another, the same patient.

    Described. One record for every ordered pair of machines: the mean change, with a 95% interval over patients.
    """
    score = chances(cohort.logits)
    found = []
    for old, source in enumerate(cohort.machines):
        for new, target in enumerate(cohort.machines):
            if new == old:
                continue
            change = score[:, new] - score[:, old]
            reach = 1.96 * float(change.std(ddof=1)) / np.sqrt(len(change)) if len(change) > 1 else 2.0
            mean = float(change.mean())
            figure = Estimate(mean, max(-1.0, mean - reach), min(1.0, mean + reach))
            found.append(Probe("move", target, figure, judged=False, patients=len(change), source=source))
    return tuple(found)


def _can(cohort: Counterfactual) -> bool:
    ill = int(cohort.truth.sum())
    return min(ill, len(cohort.truth) - ill) >= _LEAST and len(np.unique(cohort.own)) > 1


def _tested(cohort: Counterfactual, rng: np.random.Generator, deals: int) -> tuple[float, Chance]:
    """The p-value, and where T lies in 95% of deals."""
    places = np.arange(len(cohort.own))
    dealt = rng.permuted(np.tile(cohort.own, (deals, 1)), axis=1)
    scores = np.concatenate([cohort.factual[None], cohort.logits[places, dealt]])
    gap = np.round(_areas(scores, cohort.truth) - _dealt_area(cohort, np.ones(len(places))), 12)
    p = (1 + int((np.abs(gap[1:]) >= abs(gap[0])).sum())) / (1 + deals)
    low, high = np.quantile(gap, [0.025, 0.975])
    return p, Chance(float(low), float(high))


def _areas(scores: FloatArray, truth: Truth) -> FloatArray:
    """[deals] the AUROC of each row of scores."""
    ranks = rankdata(scores, axis=1)
    ill, healthy = int(truth.sum()), int((~truth).sum())
    areas: FloatArray = (ranks[:, truth].sum(axis=1) - ill * (ill + 1) / 2) / (ill * healthy)
    return areas


def _dealt_area(cohort: Counterfactual, weight: FloatArray) -> float:
    """The mean AUROC over deals, with a weight for every patient."""
    shares = np.bincount(cohort.own, weight, len(cohort.machines))
    weights = weight[:, None] * shares[None, :] / max(shares.sum(), 1e-12)
    ill, healthy = cohort.truth, ~cohort.truth
    return weighted_area(
        (cohort.logits[ill].ravel(), weights[ill].ravel()),
        (cohort.logits[healthy].ravel(), weights[healthy].ravel()),
    )


def weighted_area(ill: tuple[FloatArray, FloatArray], healthy: tuple[FloatArray, FloatArray]) -> float:
    """AUROC where every score has a weight: (scores, weights) of the ill and of the healthy; NaN without weight."""
    order = np.argsort(healthy[0], kind="stable")
    scores = healthy[0][order]
    before = np.concatenate([[0.0], np.cumsum(healthy[1][order])])
    below = before[np.searchsorted(scores, ill[0], side="left")]
    up_to = before[np.searchsorted(scores, ill[0], side="right")]
    total = float(ill[1].sum() * before[-1])
    return float((ill[1] * (below + up_to) / 2).sum()) / total if total else float("nan")


def _figures(
    cohort: Counterfactual, rng: np.random.Generator, resamples: int
) -> tuple[Estimate, tuple[Estimate, Estimate]]:
    """T, and the two areas, with percentile intervals over resampled patients of each kind."""
    count = len(cohort.truth)
    draws = [np.ones(count), *(_resampled(cohort.truth, rng) for _ in range(resamples))]
    pairs = np.array([(_own_area(cohort, weight), _dealt_area(cohort, weight)) for weight in draws])
    gaps = pairs[:, 0] - pairs[:, 1]
    if not resamples:
        return Estimate(float(gaps[0]), -1.0, 1.0), (
            Estimate(float(pairs[0, 0]), 0.0, 1.0),
            Estimate(float(pairs[0, 1]), 0.0, 1.0),
        )
    return _percentiles(gaps), (_percentiles(pairs[:, 0]), _percentiles(pairs[:, 1]))


def _own_area(cohort: Counterfactual, weight: FloatArray) -> float:
    score, ill = cohort.factual, cohort.truth
    return weighted_area((score[ill], weight[ill]), (score[~ill], weight[~ill]))


def _resampled(truth: Truth, rng: np.random.Generator) -> FloatArray:
    """How often each patient is drawn, the ill among the ill."""
    weight = np.zeros(len(truth))
    for which in (np.flatnonzero(truth), np.flatnonzero(~truth)):
        weight[which] = np.bincount(rng.integers(len(which), size=len(which)), minlength=len(which))
    return weight


def _percentiles(values: FloatArray) -> Estimate:
    """The first value is the figure, the others its bootstrap."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    value = float(values[0])
    return Estimate(value, min(value, float(low)), max(value, float(high)))
