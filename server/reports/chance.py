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

from scipy.special import owens_t

from common.messages import Estimate

Stratum = tuple[int, int]
"""Positives and negatives of one group at one hospital, in patients."""

Counts = Sequence[Stratum]


@dataclass(frozen=True)
class Band:
    """Where chance alone would put one group's AUROC, and the centre it is seen from."""

    centre: float
    low: float
    high: float


def auroc_error(auroc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC (step 1 above); infinite without both classes."""
    if positives < 1 or negatives < 1:
        return math.inf
    a = _inside(auroc, positives, negatives)
    x = NormalDist().inv_cdf(a)
    # Phi2(x, x; rho) = Phi(x) - 2 T(x, sqrt((1-rho)/(1+rho))), Owen 1956.
    q = a - 2 * float(owens_t(x, 1 / math.sqrt(3)))
    square = a * (1 - a) + (positives + negatives - 2) * (q - a * a)
    return math.sqrt(max(square, 0.0) / (positives * negatives))


def _inside(auroc: float, positives: int, negatives: int) -> float:
    # At 0 or 1 the formula says "no error"; half a swapped pair keeps it honest.
    edge = 0.5 / max(positives * negatives, 1)
    return min(max(auroc, edge), 1 - edge)


def stratified_error(auroc: float, counts: Counts) -> float:
    """Standard error of an AUROC combined over hospitals by inverse variance; infinite when none counts."""
    weight = sum(1 / auroc_error(auroc, p, n) ** 2 for p, n in counts if p > 0 and n > 0)
    return 1 / math.sqrt(weight) if weight > 0 else math.inf


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
    bands: list[Band | None] = [None] * len(aurocs)
    weak: set[int] = set()
    for _ in aurocs:
        for index in range(len(aurocs)):
            bands[index] = _band(index, aurocs, counts, (z, weak)) or bands[index]
        found = {i for i, band in enumerate(bands) if band is not None and aurocs[i] < band.low}
        if found <= weak:
            break
        weak |= found
    return bands


def _band(
    index: int, aurocs: Sequence[float], counts: Sequence[Counts], how: tuple[float, set[int]]
) -> Band | None:
    z, weak = how
    others = [j for j in range(len(aurocs)) if j != index and j not in weak]
    centre, centre_error = _common([aurocs[j] for j in others], [counts[j] for j in others])
    own = stratified_error(centre, counts[index])
    if not (math.isfinite(own) and math.isfinite(centre_error)):
        return None
    centre = min(max(centre, 1e-6), 1 - 1e-6)
    angle = math.asin(math.sqrt(centre))
    reach = z * math.hypot(own, centre_error) / (2 * math.sqrt(centre * (1 - centre)))
    low, high = max(angle - reach, 0.0), min(angle + reach, math.pi / 2)
    return Band(centre, math.sin(low) ** 2, math.sin(high) ** 2)


def _common(aurocs: Sequence[float], counts: Sequence[Counts]) -> tuple[float, float]:
    """Weighted mean and its error, errors taken at the mean itself (two passes suffice)."""
    centre = sum(aurocs) / len(aurocs) if aurocs else 0.5
    weights = [0.0] * len(aurocs)
    for _ in range(2):
        errors = [stratified_error(centre, c) for c in counts]
        weights = [0.0 if math.isinf(e) else 1 / e**2 for e in errors]
        if sum(weights) <= 0:
            return centre, math.inf
        centre = sum(w * a for w, a in zip(weights, aurocs, strict=True)) / sum(weights)
    return centre, 1 / math.sqrt(sum(weights))


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
