"""Virtual test patients with scores of a model that serves every group alike, or one group worse by a known gap.

Scores are normal within each class, on a scale whose unit is their own spread, and are given as probabilities. A
patient's images share most of what is not the finding. No image is made: only what the statistics see.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from common.statistics import Sample
from common.types import FloatArray

SCANNERS: Final = ("Aster", "Boreal", "Corvus")
WEAK: Final = SCANNERS[1]
"""The manufacturer that is served worse where a gap is planted."""


@dataclass(frozen=True)
class Cohort:
    """How the patients of one case are drawn."""

    name: str
    words: str
    patients: int = 300
    prevalence: float = 0.3
    images: int = 1
    """Most images a patient; each has one to so many."""
    alike: float = 0.6
    """Correlation of the scores of one patient's images."""
    scanners: tuple[tuple[float, ...], ...] = ((0.5, 0.3, 0.2), (0.5, 0.3, 0.2))
    """Per site, the shares of the manufacturers among its patients."""
    areas: tuple[float, ...] = (0.85, 0.85)
    """Per site, the true AUROC."""
    decimals: int | None = None
    """Places of a score, so that many are equal; None: as they are."""
    views: bool = False
    """Whether every image has a projection of its own, so that many patients have both."""
    extra: int = 0
    """Further images of every patient of the weak manufacturer."""
    wide: float = 1.0
    """Spread of that manufacturer's positive scores beside that of the negative ones, at the same AUROC."""
    planted: float = 0.0
    """By how much that manufacturer's AUROC is lower."""
    exchangeable: bool = True
    """Whether patients of all groups are alike in everything, so that permutation is exact."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """One set of test patients."""
        site = rng.integers(0, len(self.areas), self.patients)
        scanner = np.empty(self.patients, dtype=np.int64)
        for place, shares in enumerate(self.scanners):
            here = site == place
            scanner[here] = rng.choice(len(shares), int(here.sum()), p=shares)
        positive = rng.random(self.patients) < self.prevalence
        weak = scanner == SCANNERS.index(WEAK)
        counts = rng.integers(1, self.images + 1, self.patients) + self.extra * weak
        owner = np.repeat(np.arange(self.patients), counts)
        scores = self._scores(rng, owner, positive, (site, weak))
        attributes: dict[str, npt.ArrayLike] = {
            "site": np.array(["north", "south", "west"])[site][owner],
            "manufacturer": np.array(SCANNERS)[scanner][owner],
            "sex": np.array(["F", "M"])[rng.integers(0, 2, self.patients)][owner],
        }
        if self.views:
            attributes["projection"] = np.array(["AP", "PA"])[rng.integers(0, 2, len(owner))]
        return Sample(scores, positive[owner], owner, attributes, threshold=0.45)

    def _scores(
        self,
        rng: np.random.Generator,
        owner: npt.NDArray[np.int64],
        positive: npt.NDArray[np.bool_],
        groups: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]],
    ) -> FloatArray:
        site, weak = groups
        area = np.array(self.areas)[site] - self.planted * weak
        width = np.where(weak & positive, self.wide, 1.0)
        normal = NormalDist()
        reach = np.array([normal.inv_cdf(float(a)) for a in np.unique(area)])[
            np.unique(area, return_inverse=True)[1]
        ]
        # Two normal distributions with these spreads overlap by just this area at this distance.
        shift = reach * np.sqrt(1 + np.where(weak, self.wide, 1.0) ** 2)
        own, each = rng.normal(size=len(positive))[owner], rng.normal(size=len(owner))
        noise = np.sqrt(self.alike) * own + np.sqrt(1 - self.alike) * each
        eta = (shift * positive)[owner] + width[owner] * noise
        scores: FloatArray = 1 / (1 + np.exp(1.0 - eta))
        return scores if self.decimals is None else np.round(scores, self.decimals)


NULLS: Final[tuple[Cohort, ...]] = (
    Cohort("plain", "300 patients, one image each"),
    Cohort("clustered", "one to four images a patient, correlation 0.6", images=4),
    Cohort("ties", "scores in tenths", decimals=1, images=2),
    Cohort(
        "rare",
        "8% positives, unequal groups",
        patients=450,
        prevalence=0.08,
        scanners=((0.6, 0.4, 0.0), (0.6, 0.4, 0.0)),
    ),
    Cohort(
        "sites",
        "one site weaker, scanners differently shared",
        areas=(0.92, 0.75),
        scanners=((0.7, 0.2, 0.1), (0.3, 0.4, 0.3)),
    ),
    Cohort("views", "both projections of most patients", images=4, views=True),
    Cohort("uneven", "three more images of every patient of one manufacturer", extra=3, exchangeable=False),
    Cohort(
        "spread",
        "one manufacturer's positives three times as spread, same AUROC",
        wide=3.0,
        scanners=((0.7, 0.3, 0.0), (0.7, 0.3, 0.0)),
        exchangeable=False,
    ),
)
"""Cases in which no group is served worse."""

EXACT: Final = tuple(cohort.name for cohort in NULLS if cohort.exchangeable)
"""Those in which patients of all groups are alike in everything; in the others only in the figures that are judged."""
