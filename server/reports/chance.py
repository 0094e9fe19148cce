"""What chance alone would do: the band in which a group's AUROC lies when all groups are truly equal.

For group i with AUROC A_i, positives m_i and negatives n_i (in each of its hospitals):

1. Standard error at AUROC A (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747):
   SE^2 = [A(1-A) + (m+n-2)(Q-A^2)] / (mn), with Q = Phi2(x, x; 1/2), x = Phi^-1(A), the exact Q1 = Q2
   of two normal distributions (their exponential Q1, Q2 are up to twice too wide where positives are few).
   A group spread over hospitals is compared within each hospital: SE^2 = 1 / sum(1/SE_h^2).
2. All errors are scaled by the median, over the groups, of the released errors (half the interval by its z;
   they know which images are of one patient) over the formula's, so that scores that are not normal and
   several images of one patient are allowed for.
3. The centre for group i is the AUROC of the *other* groups together, weighted by 1/SE^2, so that a weak
   group cannot hide by pulling the centre down to itself. Groups found weak leave the centre of the rest,
   and the step is repeated until nothing changes, so that one weak group does not hide another.
4. The spread is s_i^2 = SE_i(centre)^2 + 1/sum over others(1/SE_j^2): the group's own chance and the centre's.
   It is laid off on the scale arcsin(sqrt(A)), on which the spread of a high AUROC is symmetric.
5. Over k groups the band is simultaneous (Sidak 1967): each is taken at 1-(1-alpha)^(1/k), two-sided.

A group is called weak when its AUROC lies below its band. When all true AUROCs are equal this happens
to any group at all in less than alpha of runs (checked by Monte Carlo in the tests).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, owens_t

from common.messages import Estimate

Stratum = tuple[int, int]
"""Positives and negatives of one group at one hospital, in patients."""

Counts = Sequence[Stratum]
Numbers = npt.NDArray[np.float64] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Band:
    """Where chance alone would put one group's AUROC, and the centre it is seen from."""

    centre: float
    low: float
    high: float


def auroc_error(auroc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC (step 1 above); infinite without both classes."""
    return float(np.sqrt(_squares(auroc, np.array([positives]), np.array([negatives]))[0]))


def _squares(auroc: float, positives: Numbers, negatives: Numbers) -> Numbers:
    """Squared standard errors of one AUROC in strata of these sizes; infinite without both classes."""
    pairs = np.maximum(positives * negatives, 1).astype(np.float64)
    # At 0 or 1 the formula says "no error"; half a swapped pair keeps it honest.
    a = np.minimum(np.maximum(auroc, 0.5 / pairs), 1 - 0.5 / pairs)
    # Phi2(x, x; rho) = Phi(x) - 2 T(x, sqrt((1-rho)/(1+rho))), Owen 1956.
    q = a - 2 * owens_t(ndtri(a), 1 / math.sqrt(3))
    square = np.maximum(a * (1 - a) + (positives + negatives - 2) * (q - a * a), 0.0) / pairs
    both: Numbers = np.where((positives > 0) & (negatives > 0), square, np.inf)
    return both


def stratified_error(auroc: float, counts: Counts) -> float:
    """Standard error of an AUROC combined over hospitals by inverse variance; infinite when none counts."""
    weight = _Groups.of([counts]).weights(auroc)[0]
    return 1 / math.sqrt(weight) if weight > 0 else math.inf


@dataclass(frozen=True, eq=False)
class _Groups:
    """The strata of all groups in one row, so that a thousand groups are weighed at once."""

    positives: Numbers
    negatives: Numbers
    group: Numbers
    """Whose each stratum is, from 0."""
    size: int

    @classmethod
    def of(cls, counts: Sequence[Counts]) -> _Groups:
        """Strata of groups in the order given."""
        each = np.array([(p, n, g) for g, strata in enumerate(counts) for p, n in strata], dtype=np.int64)
        positives, negatives, group = each.reshape(-1, 3).T
        return cls(positives, negatives, group, len(counts))

    def weights(self, auroc: float) -> Numbers:
        """1 / SE^2 of every group if its AUROC is this one; 0 where none can be had."""
        found: Numbers = np.bincount(
            self.group, 1 / _squares(auroc, self.positives, self.negatives), self.size
        )
        return found


def sidak(alpha: float, groups: int) -> float:
    """The quantile z with which `groups` two-sided intervals hold together at 1 - alpha."""
    each = 1 - (1 - alpha) ** (1 / max(groups, 1))
    return NormalDist().inv_cdf(1 - each / 2)


def released_by_formula(
    estimates: Sequence[Estimate], counts: Sequence[Counts], confidence: float = 0.95
) -> float:
    """Released standard errors over the formula's, the median of the groups, at least 0.6 (step 2 above)."""
    ratios = []
    for e, c in zip(estimates, counts, strict=True):
        formula = stratified_error(e.value, c)
        if e.low > 0 and e.high < 1 and math.isfinite(formula):
            ratios.append(standard_error(e, confidence) / formula)
    # Four images of a patient that err apart halve an error; less than that is a doubtful interval.
    return max(0.6, median(ratios)) if ratios else 1.0


def chance_band(
    aurocs: Sequence[float],
    counts: Sequence[Counts],
    *,
    confidence: float = 0.95,
    together: int | None = None,
    scale: float = 1.0,
) -> list[Band | None]:
    """The band of each group, in the order given; None for a group with nothing to compare with.

    Args:
        aurocs: one AUROC per group.
        counts: per group, positives and negatives at each of its hospitals.
        confidence: 1 - alpha, over all groups together.
        together: number of groups the band must hold for at once; those given, when not said.
        scale: factor on every standard error, from `released_by_formula`.
    """
    z = scale * sidak(1 - confidence, together or len(aurocs))
    groups, values = _Groups.of(counts), np.array(aurocs, dtype=np.float64)
    bands: list[Band | None] = [None] * len(aurocs)
    weak = np.zeros(len(aurocs), dtype=bool)
    for _ in aurocs:
        for index in range(len(aurocs)):
            others = ~weak
            others[index] = False
            bands[index] = _band(index, values, groups, (z, others)) or bands[index]
        found = weak | np.array(
            [band is not None and a < band.low for a, band in zip(aurocs, bands, strict=True)]
        )
        if (found == weak).all():
            break
        weak = found
    return bands


def _band(
    index: int, aurocs: Numbers, groups: _Groups, how: tuple[float, npt.NDArray[np.bool_]]
) -> Band | None:
    z, others = how
    centre, centre_error = _common(aurocs, groups, others)
    weight = float(groups.weights(centre)[index])
    if weight <= 0 or not math.isfinite(centre_error):
        return None
    centre = min(max(centre, 1e-6), 1 - 1e-6)
    angle = math.asin(math.sqrt(centre))
    reach = z * math.hypot(1 / math.sqrt(weight), centre_error) / (2 * math.sqrt(centre * (1 - centre)))
    low, high = max(angle - reach, 0.0), min(angle + reach, math.pi / 2)
    return Band(centre, math.sin(low) ** 2, math.sin(high) ** 2)


def _common(aurocs: Numbers, groups: _Groups, others: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Weighted mean of the others and its error, errors taken at the mean itself (two passes suffice)."""
    centre = float(aurocs[others].mean()) if others.any() else 0.5
    total = 0.0
    for _ in range(2):
        weights = groups.weights(centre)[others]
        total = float(weights.sum())
        if total <= 0:
            return centre, math.inf
        centre = float(weights @ aurocs[others]) / total
    return centre, 1 / math.sqrt(total)


def standard_error(estimate: Estimate, confidence: float = 0.95) -> float:
    """The standard error a released interval stands for: its width over 2z."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return (estimate.high - estimate.low) / (2 * z)


def combine(estimates: Sequence[Estimate], counts: Sequence[Stratum], confidence: float = 0.95) -> Estimate:
    """One AUROC over hospitals by inverse variance on the logit scale, from released summaries only.

    Variances come from the released intervals; an interval without width gets half the error of the formula.

    Raises:
        ValueError: when nothing is given.
    """
    if not estimates:
        raise ValueError("nothing to combine")
    points = [_logit_point(e, p, n, confidence) for e, (p, n) in zip(estimates, counts, strict=True)]
    total = sum(1 / error**2 for _, error in points)
    centre = sum(value / error**2 for value, error in points) / total
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) / math.sqrt(total)
    return Estimate(_logistic(centre), _logistic(centre - reach), _logistic(centre + reach))


def _logit_point(e: Estimate, positives: int, negatives: int, confidence: float) -> tuple[float, float]:
    edge = 0.5 / max(positives * negatives, 1)
    value, low, high = (min(max(x, edge), 1 - edge) for x in (e.value, e.low, e.high))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    error = (_logit(high) - _logit(low)) / (2 * z)
    floor = auroc_error(value, positives, negatives) / (value * (1 - value))
    # A bootstrap of a perfect ranking has no width; it must not get infinite weight.
    return _logit(value), max(error, 0.5 * floor) if math.isfinite(floor) else max(error, 1e-6)


def mean(estimates: Sequence[Estimate], confidence: float = 0.95) -> Estimate | None:
    """The plain mean over hospitals, each counting the same; its interval from theirs (they share no patient)."""
    if not estimates:
        return None
    k = len(estimates)
    value = sum(e.value for e in estimates) / k
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    reach = z * math.sqrt(sum(standard_error(e, confidence) ** 2 for e in estimates)) / k
    return Estimate(value, value - reach, value + reach)


def unpaired(first: Estimate, second: Estimate, confidence: float = 0.95) -> Estimate:
    """`first - second` as if on different patients: wider than a paired interval, never narrower in earnest."""
    value = first.value - second.value
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    reach = z * math.hypot(standard_error(first, confidence), standard_error(second, confidence))
    return Estimate(value, value - reach, value + reach)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
