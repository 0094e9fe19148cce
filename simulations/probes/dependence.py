"""The score given the truth: do patients of equal truth score higher where more of the trained patients were ill.

Judged, for manufacturer, site and sex. Two things must both be shown, because a shortcut needs both:

    link     among training patients the level tells who is ill: permutation of the truth over patients, statistic
             sum over levels of n (share of ill - mean share)^2
    follows  among test patients of equal truth (and the same site) the score is higher at levels where the share of ill in
             training was above the average than where it was below: levels are permuted between patients within strata
             of truth and site, one-sided, statistic D below

    D = sum_s w_s (mean score above - mean score below) in stratum s, w_s = n_above n_below / (n_above + n_below), over sum w_s
    p = max(p_link, p_follows)

The larger of two p-values is one for "not both" (intersection-union test: Berger 1982): if either is not so, an alarm is as
rare as stated, whatever the other does. A machine that is merely noisier changes scores of patients with equal truth, too;
where it never told who is ill it cannot have been learned as a shortcut, and that is the business of the gaps.
Scores are probabilities, a patient's mean within a level. Where an attribute never varies within a site it cannot be told
from the site; it is then left out here and the site speaks for it. Holm over attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse

from common.messages import Estimate
from common.statistics.cells import Cells, cells_of
from common.statistics.permutation import holm, one_sided, shuffled
from common.statistics.sample import Sample
from common.types import FloatArray
from server.records_bias import Chance, Probe
from simulations.probes.contract import Model, Names, Owners, Seen, Truth, chances

ATTRIBUTES: Final = ("manufacturer", "site", "sex")
_DRAWS: Final = 1999
_SIDES: Final = 2
_RESAMPLES: Final = 300


@dataclass(frozen=True)
class Taught:
    """What a model could learn from: labels and attributes of training images."""

    truth: Truth
    patients: Owners
    attributes: Mapping[str, Names]


@dataclass(frozen=True)
class _Contrast:
    """The cells that take part: D is a function of which of them lie above."""

    cells: Cells
    score: FloatArray
    """[cells]"""
    above: FloatArray
    """[levels] 1 where training had more ill than on average, 0 elsewhere."""

    def value(self, levels: np.ndarray, weight: FloatArray | None = None) -> FloatArray:
        """D for levels [cells, draws], with weights [cells, draws] or none; NaN where no stratum has both sides."""
        weights = np.ones((len(self.score), 1)) if weight is None else weight
        high = self.above[levels] * weights
        low = weights - high
        places = (self.cells.stratum, np.arange(len(self.score)))
        strata = sparse.csr_matrix((np.ones(len(self.score)), places))
        n_high, s_high, n_low, s_low = (
            strata @ part for part in (high, high * self.score[:, None], low, low * self.score[:, None])
        )
        both = (n_high > 0) & (n_low > 0)
        share = np.where(both, n_high * n_low / np.maximum(n_high + n_low, 1e-12), 0.0)
        gap = s_high / np.maximum(n_high, 1e-12) - s_low / np.maximum(n_low, 1e-12)
        total = share.sum(axis=0)
        found: FloatArray = np.where(total > 0, (share * gap).sum(axis=0) / np.maximum(total, 1e-12), np.nan)
        return found


def dependence(
    model: Model,
    seen: Seen,
    taught: Taught,
    rng: np.random.Generator,
    attributes: Sequence[str] = ATTRIBUTES,
    *,
    draws: int = _DRAWS,
) -> tuple[Probe, ...]:
    """Whether scores follow what the training patients' machine, site or sex told.

    Args:
        model: any.
        seen: test patients.
        taught: training patients, of all hospitals.
        rng: of permutations, coins and the bootstrap.
        attributes: those looked at; what is missing or has one level is passed over.
        draws: permutations of each of the two tests.
    """
    score = chances(model.logits(seen.images))
    sample = Sample(score, seen.truth, seen.patients, dict(seen.attributes))
    found: list[tuple[str, Estimate, Chance, float, int]] = []
    for name in attributes:
        if min(_levels(seen.attributes, name), _levels(taught.attributes, name)) < _SIDES:
            continue
        contrast = _contrast(sample, taught, name)
        if contrast is None:
            continue
        follows, figure, band = _followed(contrast, rng, draws)
        p = max(_linked(taught, name, rng, draws), follows)
        found.append((name, figure, band, p, len(np.unique(contrast.cells.patient))))
    adjusted = holm(np.array([p for *_, p, _ in found])) if found else ()
    return tuple(
        Probe(
            "dependence", name, figure, judged=True, patients=patients, source="score", chance=band,
            p=p, holm=float(after),
        )
        for (name, figure, band, p, patients), after in zip(found, adjusted, strict=True)
    )  # fmt: skip


def _levels(attributes: Mapping[str, Names], name: str) -> int:
    """How many levels are known; 0 where the attribute is not there."""
    return len(set(attributes[name].tolist()) - {""}) if name in attributes else 0


def _contrast(sample: Sample, taught: Taught, name: str) -> _Contrast | None:
    """The cells of test patients; None where no patient could have another level."""
    cells = cells_of(sample, (name,), ("site",) if "site" in sample.attributes else ())
    shares, overall = _shares(taught, name)
    above = np.array([float(shares.get(level, overall) > overall) for level in cells.names])
    if len(cells.names) < _SIDES or above.all() or not above.any():
        return None
    score = cells.total(sample.scores[cells.images]) / np.maximum(cells.total(np.ones(len(cells.images))), 1)
    contrast = _Contrast(cells, score, above)
    return contrast if np.isfinite(contrast.value(cells.level[:, None])[0]) else None


def _shares(taught: Taught, name: str) -> tuple[dict[str, float], float]:
    """By level the share of training patients with the finding, and that of all."""
    levels, ill = _firsts(taught, name)
    names, codes = np.unique(levels, return_inverse=True)
    share = np.bincount(codes, ill) / np.bincount(codes)
    return {str(n): float(s) for n, s in zip(names, share, strict=True)}, float(ill.mean())


def _firsts(taught: Taught, name: str) -> tuple[Names, FloatArray]:
    """One row a patient: the level of the first image, and whether any shows the finding."""
    known = taught.attributes[name] != ""
    _, first, owner = np.unique(taught.patients[known], return_index=True, return_inverse=True)
    ill = np.bincount(owner.reshape(-1), taught.truth[known]) > 0
    return taught.attributes[name][known][first], ill.astype(np.float64)


def _linked(taught: Taught, name: str, rng: np.random.Generator, draws: int) -> float:
    """The p-value of the link: how many of each level are ill when the truth is dealt anew is hypergeometric."""
    levels, ill = _firsts(taught, name)
    names, codes = np.unique(levels, return_inverse=True)
    sizes = np.bincount(codes, minlength=len(names))
    observed = np.bincount(codes, ill, len(names))[None]
    dealt = rng.multivariate_hypergeometric(sizes, int(ill.sum()), size=draws, method="marginals")
    return one_sided((np.concatenate([observed, dealt]) ** 2 / sizes).sum(axis=1), rng)


def _followed(contrast: _Contrast, rng: np.random.Generator, draws: int) -> tuple[float, Estimate, Chance]:
    """The one-sided p-value, D with its bootstrap interval, and where chance puts D."""
    cells = contrast.cells
    levels = np.concatenate([cells.level[:, None], shuffled(cells, rng, draws).astype(np.int64)], axis=1)
    values = contrast.value(levels)
    p = one_sided(values, rng)
    known = values[np.isfinite(values)]
    low, high = np.quantile(known[1:], [0.025, 0.975]) if len(known) > 1 else (0.0, 0.0)
    people = int(cells.patient.max()) + 1
    drawn = rng.multinomial(people, np.full(people, 1 / people), size=_RESAMPLES).T
    resampled = contrast.value(cells.level[:, None], drawn[cells.patient].astype(np.float64))
    reach = np.nanquantile(resampled, [0.025, 0.975])
    value = float(values[0])
    figure = Estimate(value, min(value, float(reach[0])), max(value, float(reach[1])))
    return p, figure, Chance(float(low), float(high))
