"""From a figure with its influences to a confidence interval, sound at the ends of the scale too."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from common.messages import Estimate
from common.models.influence import Figure


def auroc_interval(figure: Figure, confidence: float) -> Estimate:
    """The interval of an area under the ROC curve.

    At complete separation (1, or 0) the DeLong variance is zero and says nothing. Then, with k
    disjoint pairs of a positive and a negative patient, a true area A gives complete separation with
    probability A**k at most, and the interval ends where that is (1 - confidence) / 2. Where a single
    patient carries a class the interval is [0, 1].
    """
    if not figure.measurable:
        return Estimate(figure.value, 0.0, 1.0)
    if 0 < figure.value < 1 and figure.error > 0:
        return logit_interval(figure.value, figure.error, confidence)
    reach = 1 - math.exp(math.log((1 - confidence) / 2) / figure.patients)
    return Estimate(figure.value, max(0.0, figure.value - reach), min(1.0, figure.value + reach))


def rate_interval(figure: Figure, confidence: float) -> Estimate:
    """Wilson's interval, with as many independent images as would have the clustered variance.

    Never more than there are images; where every image, or none, is a hit, the patients are counted.
    """
    if figure.error > 0:
        independent = figure.value * (1 - figure.value) / figure.error**2
        return wilson(figure.value, min(independent, figure.units), confidence)
    return wilson(figure.value, figure.patients, confidence)


def difference_interval(
    one: Figure, two: Figure, interval: Callable[[Figure, float], Estimate], confidence: float
) -> Estimate:
    """`one - two` of the same patients, paired, in [-1, 1].

    Where either lies at an end of its scale its variance is too small to be believed; the interval is
    then made from the two intervals without their correlation (MOVER, Newcombe 2012), which is wider.
    """
    change = one.minus(two)
    if _at_the_end(one) or _at_the_end(two) or not change.measurable:
        a, b = interval(one, confidence), interval(two, confidence)
        down, up = (
            math.hypot(a.value - a.low, b.high - b.value),
            math.hypot(a.high - a.value, b.value - b.low),
        )
    else:
        down = up = quantile(confidence) * change.error
    return Estimate(change.value, max(-1.0, change.value - down), min(1.0, change.value + up))


def quantile(confidence: float) -> float:
    """Standard errors on each side of a normal value that hold it with this confidence."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def logit_interval(value: float, error: float, confidence: float) -> Estimate:
    """A value strictly between 0 and 1 with its interval, symmetric on the logit scale."""
    centre = math.log(value / (1 - value))
    reach = quantile(confidence) * error / (value * (1 - value))
    return Estimate(value, _expit(centre - reach), _expit(centre + reach))


def wilson(value: float, size: float, confidence: float) -> Estimate:
    """A proportion out of `size` independent units with its score interval (Wilson 1927)."""
    z2 = quantile(confidence) ** 2
    centre = (value + z2 / (2 * size)) / (1 + z2 / size)
    reach = math.sqrt(z2 * (value * (1 - value) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return Estimate(value, min(value, max(0.0, centre - reach)), max(value, min(1.0, centre + reach)))


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _at_the_end(figure: Figure) -> bool:
    return figure.error == 0 or not 0 < figure.value < 1
