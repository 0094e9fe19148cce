"""Accuracy of a model on the test rows of each hospital, at a probability of one half.

It is the figure that others publish for such tables. No hospital releases it; a simulation holds the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from client.dataset import SiteData
from client.evaluation import predict
from common.messages import Estimate
from common.models import Network
from common.models.intervals import wilson

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Hits:
    """Right answers among test patients."""

    right: int
    of: int

    @property
    def share(self) -> float:
        """From 0 to 1; not a number without patients."""
        return self.right / self.of if self.of else float("nan")

    @property
    def interval(self) -> Estimate:
        """With Wilson's interval at 95%."""
        return wilson(self.share, self.of, _CONFIDENCE)


@dataclass(frozen=True)
class Accuracies:
    """One arm's accuracy, by hospital."""

    arm: str
    sites: dict[str, Hits]

    @property
    def mean(self) -> float:
        """Over hospitals, each counting the same: what FLamby reports."""
        return fmean(hits.share for hits in self.sites.values())

    @property
    def patients(self) -> Hits:
        """Over all patients."""
        return Hits(sum(h.right for h in self.sites.values()), sum(h.of for h in self.sites.values()))


def hits(net: Network, data: SiteData) -> Hits:
    """How often the network is right about a hospital's test patients."""
    found = predict(net, data.test)
    right = (found.scores[:, 0] >= 0.5) == found.truth[:, 0]
    return Hits(int(np.count_nonzero(right)), len(right))


def together(folds: list[Mapping[str, Hits]]) -> dict[str, Hits]:
    """Hospital by hospital over folds that share no test patient."""
    return {
        site: Hits(sum(one[site].right for one in folds), sum(one[site].of for one in folds))
        for site in folds[0]
    }
